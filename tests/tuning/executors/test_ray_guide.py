"""The commands of docs/guides/ray.md, on two nodes of this machine."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest
import ray_nodes
from servers import environment, free_port

ROOT = Path(__file__).parents[3]
PAGE = ROOT / "docs" / "guides" / "ray.md"


def fences(language: str) -> list[list[str]]:
    """The commands of each fence, without their comments."""
    parts = PAGE.read_text(encoding="utf-8").split(f"```{language}\n")[1:]
    bodies = [part.split("\n```")[0].replace("\\\n", " ") for part in parts]
    return [[line.partition("  #")[0].strip() for line in body.split("\n") if line.strip()] for body in bodies]


def run(command: str, directory: Path, inside: tuple[str, ...] = (), **variables: str) -> str:
    here = {**environment(), "PYTHONPATH": str(ROOT), **variables}
    done = subprocess.run(
        [*inside, "bash", "-ec", command], cwd=directory, env=here, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture
def experiments(work, empty_store):
    shutil.copytree(ROOT / "experiments", work / "experiments")
    spec = work / "experiments" / "quick.yaml"
    spec.write_text(spec.read_text().replace("epochs: 3", "epochs: 1").replace("repeats: 2", "repeats: 1"))
    shutil.copy(empty_store, work / "mlflow.db")
    return work


def test_the_token_of_the_page_lets_in_and_its_nodes_start_as_those_of_the_tests(tmp_path):
    if not ray_nodes.RAY.exists():
        pytest.skip("Ray is not installed")
    _, token, start, _, symmetric = fences("sh")
    run("\n".join(token), tmp_path, HOME=str(tmp_path))
    kept = tmp_path / ".ray" / "auth_token"
    assert len(kept.read_text()) >= 32
    assert kept.stat().st_mode & 0o777 == 0o600
    words = " ".join([*start, *symmetric])
    for option in ("--head --port=", "--address=", "--include-dashboard=false", "--executor ray --ray-address"):
        assert option in words
    assert "export RAY_AUTH_MODE=token RAY_USAGE_STATS_ENABLED=0" in start


def test_what_the_page_serves_is_had_at_the_address_that_it_exports(tmp_path):
    (tmp_path / "a file").write_text("of the data")
    port = str(free_port())
    serve, export = fences("sh")[3]
    address = export.partition("=")[2].replace("FIRST_NODE", "127.0.0.1").replace("8000", port)
    command = serve.replace("8000", port).replace("/data", str(tmp_path))
    with subprocess.Popen(
        ["bash", "-c", f"exec {command}"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as server:
        try:
            assert wait_for(f"{address}/a%20file") == b"of the data"
        finally:
            server.kill()


def wait_for(address: str) -> bytes:
    deadline = time.monotonic() + 30
    while True:
        try:
            with urllib.request.urlopen(address, timeout=5) as answer:
                return answer.read()
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)


@pytest.mark.long
def test_the_sweep_of_the_page(nodes, experiments):
    (command,) = [line for line in fences("sh")[2] if line.startswith("cifar-mlflow")]
    told = run(command.replace("FIRST_NODE:6379", nodes.address), experiments, **nodes.environment)
    assert "done: 6 runs, 0 failed, 0 pruned; winner " in told


@pytest.mark.long
def test_the_symmetric_run_of_the_page_on_one_machine(experiments):
    if not ray_nodes.RAY.exists() or os.getuid() or not shutil.which("unshare"):
        pytest.skip("Ray, and a namespace of processes for what `ray stop` ends")
    (command,) = fences("sh")[4]
    inside = ("unshare", "--pid", "--net", "--fork", "--mount-proc", "--kill-child", "sh", "-c")
    inside += ('ip link set lo up && exec "$@"', "sh")
    words = f"--num-cpus=2 --object-store-memory={ray_nodes.STORE} --temp-dir=/tmp/cm-ray-{os.getpid()}"
    try:
        told = run(command.replace(" -- ", f" {words} -- "), experiments, inside, **variables())
    finally:
        shutil.rmtree(f"/tmp/cm-ray-{os.getpid()}", ignore_errors=True)
    assert "done: 6 runs, 0 failed, 0 pruned; winner " in told


def variables() -> dict[str, str]:
    return {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "7" * 64, "RAY_USAGE_STATS_ENABLED": "0"}


@pytest.mark.long
def test_the_symmetric_run_of_an_allocation_on_two_nodes(experiments):
    """As `srun` starts it: the same command on each node."""
    if not ray_nodes.RAY.exists() or not ray_nodes.may_divide():
        pytest.skip("two nodes, each in namespaces of its own")
    _, command = fences("bash")[0][1:]
    net, port = f"10.{128 + os.getpid() % 60}.7", free_port()
    command = command.removeprefix("srun ").replace("$head:6379", f"{net}.1:{port}")
    command = command.replace('"$SLURM_JOB_NUM_NODES"', "2")
    words = f"--num-cpus=1 --object-store-memory={ray_nodes.STORE}"
    command = command.replace(" --  ", f" {words} -- ")
    spaces = [f"cmr{os.getpid()}{name}" for name in "ab"]
    with ray_nodes.two_namespaces(spaces, [f"{net}.1", f"{net}.2"]):
        alone = ("unshare", "--pid", "--fork", "--mount-proc", "--kill-child", "bash", "-ec", command)
        began = [
            subprocess.Popen(
                ["ip", "netns", "exec", space, *alone],
                cwd=experiments,
                env={**environment(), "PYTHONPATH": str(ROOT), **variables()},
                stdout=subprocess.PIPE,
                stderr=sys.stderr,
                text=True,
            )
            for space in spaces
        ]
        told, _ = began[0].communicate(timeout=500)
        time.sleep(1)
        began[1].terminate()
        began[1].communicate(timeout=60)
    assert "done: 6 runs, 0 failed, 0 pruned; winner " in told
