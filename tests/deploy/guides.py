"""The commands of a guide, run one after the other before the services that it speaks of."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from servers import BIN, free_port
from slurm import Slurm
from team import KEYS, ROOT, TeamServer

sys.path.append(str(Path(__file__).parents[1] / "docs"))
import pages

SETS_VARIABLES = re.compile(r"(set -a|export) ")


class GuideSession(pages.Session):
    """With the test's own words in place of some of the page's; `after` is called with each command that was run.

    What a command sets for those that come after it, in the reader's shell, is kept.
    """

    def __init__(self, stands_for: Mapping[str, str], after: Callable[[str], None] = lambda text: None) -> None:
        super().__init__()
        self._stands_for, self._after = dict(stands_for), after

    def run(self, text: str, **options: Any) -> tuple[int, str]:
        for ours, theirs in self._stands_for.items():
            text = text.replace(ours, theirs)
        code, printed = self._variables(text) if SETS_VARIABLES.match(text) else super().run(text, **options)
        if code == 0:
            self._after(text)
        return code, printed

    def _variables(self, text: str) -> tuple[int, str]:
        done = subprocess.run(["bash", "-c", f"{text} && env -0"], capture_output=True, text=True, check=False)
        if done.returncode == 0:
            os.environ.update(line.split("=", 1) for line in done.stdout.split("\0") if "=" in line)
        return done.returncode, done.stderr


def run_page(name: str, session: GuideSession, *, short: bool) -> int:
    """Runs the page's commands, in a short form without those that are marked `long`; returns how many there were."""
    page, count = pages.ROOT / "docs" / "guides" / name, 0
    for fence in pages.fences(page):
        if fence.note("not run") or (short and "long" in fence.notes):
            continue
        for command, wrong, printed in pages.run(fence, session, short=short):
            count += 1
            assert not wrong, f"{fence.where}: {command.text}: {wrong}\n" + "\n".join(printed)
    return count


def in_a_clone(work, short: bool):
    """As `pages.clean_directory`, with deploy/ in it."""
    (work / "work").mkdir(exist_ok=True)
    (work / "work" / "deploy").symlink_to(pages.ROOT / "deploy")
    os.environ["PATH"] = f"{BIN}{os.pathsep}{os.environ['PATH']}"
    return pages.clean_directory(work, short=short)


WIPE = """\
#!{python}
import sys
from pathlib import Path
sys.path[:0] = {path}
from team import TeamServer
TeamServer(Path({home!r}), {endpoint!r}, {bucket!r}).wipe()
"""


def of_team_server(server: TeamServer, directory: Path) -> dict[str, str]:
    """What stands for the names on the page of a server that is not set up yet; writes the files that it speaks of."""
    ports = [free_port() for _ in range(3)]
    more = "--workers 1 --port {} --tls-port {} --database-port {}".format(*ports)
    (directory / "s3.keys").write_text(KEYS)
    path, wipe = [str(ROOT / "tests"), str(ROOT / "tests" / "deploy")], directory / "wipe"
    wipe.write_text(
        WIPE.format(
            python=sys.executable, path=path, home=str(server.home), endpoint=server.endpoint, bucket=server.bucket
        )
    )
    wipe.chmod(0o755)
    return {
        "https://s3.example": server.endpoint,
        "s3://mlflow": f"s3://{server.bucket}",
        "https://tracking.example": f"http://127.0.0.1:{ports[0]}",
        "--name tracking.example": f"--name localhost {more}",
        "/srv/backup/mlflow": str(directory / "backup"),
    }


def settings_of_jobs(directory: Path, store: str) -> Path:
    """What every job under Slurm needs here besides what the page says: the package, and one thread."""
    path = directory / "jobs.env"
    path.touch(0o600)
    kept = {name: os.environ[name] for name in ("CIFAR_MLFLOW_STATE", "XDG_CACHE_HOME", "MPLCONFIGDIR")}
    kept |= {"MLFLOW_TRACKING_URI": store, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "PATH": f"{BIN}:$PATH"}
    path.write_text("".join(f"{name}={value}\n" for name, value in kept.items()))
    return path


def wait_for_jobs(slurm: Slurm | None, command: str, cancel: bool = False) -> None:
    """Until those that the command has submitted are over; or they are cancelled as soon as they are there."""
    if slurm and command.startswith("sbatch"):
        assert slurm.states(), command
        if cancel:
            slurm.scancel("--user", str(os.getuid()))
        slurm.wait_for(lambda: not slurm.states(), 1800)
