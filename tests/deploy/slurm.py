"""A Slurm of one controller and two nodes on this machine, for as long as a test needs it."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from servers import free_port

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "scancel", "scontrol", "squeue")
PATH = f"{os.environ['PATH']}:/usr/sbin:/sbin"
CONFIGURATION = """\
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={directory}/munge/socket
ProctrackType=proctrack/pgid
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
ReturnToService=2
MpiDefault=none
SlurmdTimeout=5
StateSaveLocation={directory}/state
SlurmdSpoolDir={directory}/%n
SlurmctldPidFile={directory}/slurmctld.pid
SlurmdPidFile={directory}/%n.pid
SlurmctldLogFile={directory}/slurmctld.log
SlurmdLogFile={directory}/%n.log
SchedulerParameters=sched_interval=1,bf_interval=1,batch_sched_delay=0,requeue_delay=1
NodeName=n1 NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[1]} CPUs=1
NodeName=n2 NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[2]} CPUs=1
PartitionName=p Nodes=n1,n2 Default=YES State=UP
"""


class Slurm:
    """The cluster. What it calls finds it by SLURM_CONF."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        directory.chmod(0o755)
        for name, mode in (("munge", 0o711), ("state", 0o755), ("n1", 0o755), ("n2", 0o755)):
            (directory / name).mkdir()
            (directory / name).chmod(mode)
        ports = [free_port() for _ in range(3)]
        text = CONFIGURATION.format(host=socket.gethostname().split(".")[0], ports=ports, directory=directory)
        (directory / "slurm.conf").write_text(text)
        key = directory / "munge" / "key"
        key.touch(0o600)
        key.write_bytes(secrets.token_bytes(1024))
        words = [f"--{name}={directory}/munge/{name.partition('-')[0]}" for name in ("socket", "pid-file", "log-file")]
        self._call("munged", f"--key-file={key}", f"--seed-file={directory}/munge/seed", *words)
        self._call("slurmctld", "-f", directory / "slurm.conf")
        for node in ("n1", "n2"):
            self.start_node(node)
        self.wait_for(lambda: "idle" in self._call("sinfo", "-h", "-t", "idle", "-o", "%T %D"))

    @property
    def configuration(self) -> str:
        """The path by which Slurm's commands find the cluster."""
        return str(self._directory / "slurm.conf")

    def close(self) -> None:
        with contextlib.suppress(subprocess.CalledProcessError):
            self._call("scancel", "--user", str(os.getuid()))
            self.wait_for(lambda: not self.states())
        for pid_file in [*self._directory.glob("*.pid"), self._directory / "munge" / "pid"]:
            with contextlib.suppress(OSError, ValueError):
                os.kill(int(pid_file.read_text()), signal.SIGTERM)

    def start_node(self, node: str) -> None:
        self._call("slurmd", "-N", node, "-f", self._directory / "slurm.conf")

    def kill_node(self, node: str) -> None:
        """As if its plug were pulled: slurmd, what it has started, and what that has started are gone."""
        there = [each for each in psutil.process_iter() if self._is_at(each, node)]
        steps = {parent for each in there if (parent := each.parent()) and "slurmstepd" in parent.name()}
        daemon = psutil.Process(int((self._directory / f"{node}.pid").read_text()))
        for victim in [daemon, *steps, *there]:
            with contextlib.suppress(psutil.NoSuchProcess):
                victim.kill()

    def _is_at(self, process: psutil.Process, node: str) -> bool:
        with contextlib.suppress(psutil.Error):
            found = process.environ()
            ours = found.get("SLURM_CONF") == str(self._directory / "slurm.conf")
            return ours and found.get("SLURMD_NODENAME") == node
        return False

    def submit(self, script: Path, *words: object, options: tuple = ()) -> str:
        """The job's number."""
        return self._call("sbatch", "--parsable", *options, script, *words).strip()

    def states(self) -> dict[str, str]:
        """State and node by job, of those that are not over; a part of an array is 12_3."""
        lines = self._call("squeue", "-h", "-r", "-o", "%i %T %N").splitlines()
        return {line.split()[0]: line.partition(" ")[2].strip() for line in lines}

    def scancel(self, *words: str) -> None:
        self._call("scancel", *words)

    def requeue(self, job: str) -> None:
        self._call("scontrol", "requeue", job)

    def wait_for(self, condition: Callable[[], object], seconds: float = 900) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, self.told()
            time.sleep(0.2)

    def told(self) -> str:
        logs = [*self._directory.glob("*.log"), *Path.cwd().glob("*.log")]
        return "\n".join(f"--- {log}\n{log.read_text()[-2000:]}" for log in logs)

    def _call(self, program: str, *words: object) -> str:
        command = [shutil.which(program, path=PATH) or program, *map(str, words)]
        environment = {**os.environ, "SLURM_CONF": str(self._directory / "slurm.conf")}
        return subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout


@contextlib.contextmanager
def cluster() -> Iterator[Slurm]:
    """A running Slurm of its own; skips where it is not installed."""
    if missing := [program for program in PROGRAMS if not shutil.which(program, path=PATH)]:
        pytest.skip(f"Slurm is not installed: {', '.join(missing)}")
    if os.getuid() != 0:
        pytest.skip("a Slurm of one's own has to be started by root")
    directory = Path(tempfile.mkdtemp(prefix="cifar-mlflow-slurm-", dir="/tmp"))
    slurm = None
    try:
        slurm = Slurm(directory)
        yield slurm
    finally:
        if slurm:
            slurm.close()
        shutil.rmtree(directory, ignore_errors=True)
