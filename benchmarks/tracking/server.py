"""What the server of deploy/server bears: writes a second by number of clients, the leaderboard by number of runs.

    python benchmarks/tracking/server.py [ROUNDS] [RUNS...]

A server is set up by deploy/server (PostgreSQL, users, four workers) before moto's S3 server, all on this machine. Told
is, each done ROUNDS times (default 3), the median with the least and the most:

- what a training asks of it: its requests and its bytes of artifacts, by one of 1 epoch and one of 9 on digits;
- writes a second: 1, 2, 4, 8, 16 and 32 clients send `log-batch` with the metrics of an epoch, each as fast as answers
  come, for SECONDS; the median request and the slowest of a hundred beside it; and the processor time of MLflow and
  PostgreSQL a write, which other programs on the cores change little. The clients are threads of this process and
  take their share of the cores, so a server alone on such a machine bears more;
- the leaderboard: the 50 best of RUNS runs (default 1,000, 10,000 and 100,000), as MLflow's page asks for them; writes
  of 8 clients, and our own commands, as processes with all their imports, at that size. The runs are copies of the
  training's rows, made in the database: sweeps of 50, each of 10 learning rates with 5 seeds.

Needs what the tests need, ten minutes, and 4 GB of disk for 100,000 runs. Leave the machine alone meanwhile; the load
before the start is told.
"""

from __future__ import annotations

import contextlib
import datetime
import os
import platform
import re
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import psutil
import requests

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "deploy" / "server" / "server"
CLIENTS, SECONDS, WORKERS = (1, 2, 4, 8, 16, 32), 4.0, 4
SWEEP = "INSERT INTO tags SELECT 'sweep', 'sweep-' || n / 50, md5('copy' || n) FROM generate_series({first}, {last}) n"
COMMANDS = {
    "compare, 50 of them": ["compare", "digits", "--filter", "tags.sweep = 'sweep-7'"],
    "compare, all": ["compare", "digits"],
    "list": ["list"],
    "doctor": ["doctor"],
    "train --offline": ["train", "--dataset", "digits", "--scheduler", "none", "--epochs", "1", "--offline"],
    "sync": ["sync"],
}
MOST_COMPARED = 10_000
METRICS = ("val_accuracy", "val_loss", "train_accuracy", "train_loss", "lr", "images_per_second")
KEYS = "AWS_ACCESS_KEY_ID=moto\nAWS_SECRET_ACCESS_KEY=moto\n"
# Of the rows of one run, as many copies as wanted, each with an id and an accuracy of its own.
COPIES = """
INSERT INTO {table} SELECT (jsonb_populate_record(r, jsonb_build_object('run_uuid', md5('copy' || n)) || {changes})).*
FROM {table} r, generate_series({first}, {last}) n WHERE r.run_uuid = '{run_id}'
"""
CHANGES = {
    "runs": "jsonb_build_object('start_time', r.start_time + n, 'name', r.name || n)",
    "params": """jsonb_build_object('value', CASE r.key WHEN 'seed' THEN (n % 5)::text WHEN 'learning_rate'
        THEN (0.001 * (1 + n % 50 / 5) + 0.000001 * (n / 50))::text ELSE r.value END)""",
    "tags": "'{}'",
    "latest_metrics": "jsonb_build_object('value', r.value + n % 997 / 1000.0)",
}


class Server:
    """deploy/server in a directory of its own."""

    def __init__(self, directory: Path, endpoint: str) -> None:
        self.home = directory / "home"
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        self.environment = {**os.environ, "PATH": path, "CIFAR_MLFLOW_SERVER": str(self.home)}
        self.environment |= {
            "PYTHONPATH": str(ROOT),
            "OMP_NUM_THREADS": "1",
            "CIFAR_MLFLOW_STATE": f"{directory}/state",
        }
        ports = [str(free_port()) for _ in range(3)]
        (directory / "s3.keys").write_text(KEYS)
        words = ["--name", "localhost", "--artifacts", "s3://mlflow", "--endpoint", endpoint]
        words += ["--keys", f"{directory}/s3.keys"]
        self(
            "setup",
            *words,
            "--workers",
            str(WORKERS),
            "--port",
            ports[0],
            "--tls-port",
            ports[1],
            "--database-port",
            ports[2],
        )
        self("start")
        lines = (self.home / "server.env").read_text().splitlines()
        self.settings = dict(line.split("=", 1) for line in lines if "=" in line and line[0] != "#")
        user = dict(line.split("=", 1) for line in self("add-user", "ann").split())
        self.address = self.environment["MLFLOW_TRACKING_URI"] = f"http://127.0.0.1:{ports[0]}"
        self.environment |= user
        self.credentials = (user["MLFLOW_TRACKING_USERNAME"], user["MLFLOW_TRACKING_PASSWORD"])

    def __call__(self, *words: str) -> str:
        with tempfile.TemporaryFile("w+") as output:
            subprocess.run([SCRIPT, *words], env=self.environment, stdout=output, check=True)
            output.seek(0)
            return output.read()

    def sql(self, text: str) -> str:
        uri = self.settings["MLFLOW_BACKEND_STORE_URI"].replace("+psycopg", "")
        variables = {**os.environ, "PGPASSWORD": self.settings["PGPASSWORD"]}
        command = ["psql", "-qtA", "-v", "ON_ERROR_STOP=1", uri, "-c", text]
        return subprocess.run(command, env=variables, check=True, capture_output=True, text=True).stdout

    def answered(self) -> int:
        """How many requests the server has answered so far, by its log."""
        return len(re.findall(r'"(?:GET|POST|PUT|PATCH|DELETE) /', (self.home / "server.log").read_text()))

    def processor_seconds(self) -> float:
        """That MLflow and PostgreSQL have taken so far, with what ran under them and has ended."""
        files = (self.home / "server.pid", self.home / "postgresql" / "postmaster.pid")
        roots = [psutil.Process(int(path.read_text().split()[0])) for path in files]
        ended = [times.children_user + times.children_system for times in (root.cpu_times() for root in roots)]
        alive = 0.0
        for each in (process for root in roots for process in (root, *root.children(recursive=True))):
            with contextlib.suppress(psutil.NoSuchProcess):  # PostgreSQL starts and ends some
                times = each.cpu_times()
                alive += times.user + times.system
        return alive + sum(ended)

    def post(self, path: str, values: dict, session: requests.Session) -> dict:
        answer = session.post(f"{self.address}/api/2.0/mlflow/{path}", json=values, auth=self.credentials, timeout=300)
        answer.raise_for_status()
        return answer.json()


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


@contextlib.contextmanager
def object_store(directory: Path) -> Iterator[str]:
    port = free_port()
    command = [str(Path(sys.executable).parent / "moto_server"), "-H", "127.0.0.1", "-p", str(port)]
    with (directory / "moto.log").open("w") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        while True:
            with contextlib.suppress(OSError):
                urllib.request.urlopen(f"http://127.0.0.1:{port}/moto-api/", timeout=5)
                break
            time.sleep(0.2)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.kill()


def training(server: Server, epochs: int) -> tuple[str, int]:
    """The run of a training, and how many requests it took."""
    before = server.answered()
    words = ["train", "--dataset", "digits", "--scheduler", "none", "--epochs", str(epochs)]
    command = [sys.executable, "-m", "cifar_mlflow", *words]
    done = subprocess.run(command, env=server.environment, check=True, capture_output=True, text=True)
    time.sleep(1)
    return done.stdout.split()[1], server.answered() - before


def artifact_bytes(endpoint: str) -> int:
    import boto3

    keys = {"aws_access_key_id": "moto", "aws_secret_access_key": "moto", "region_name": "us-east-1"}
    bucket = boto3.resource("s3", endpoint_url=endpoint, **keys).Bucket("mlflow")
    return sum(each.size for each in bucket.objects.all())


def writes(server: Server, run_ids: list[str]) -> tuple[float, float, float, float]:
    """By as many clients as there are runs: writes a second; the median request, the slowest of a hundred, and the
    server's processor time a write, in ms."""
    seconds: list[float] = []
    begin, end = threading.Barrier(len(run_ids) + 1), [0.0]

    def write(run_id: str) -> None:
        with requests.Session() as session:
            begin.wait()
            step = int(time.time() * 1000)
            while (begun := time.perf_counter()) < end[0]:
                step += 1
                metrics = [{"key": key, "value": 1.5, "timestamp": step, "step": step} for key in METRICS]
                server.post("runs/log-batch", {"run_id": run_id, "metrics": metrics}, session)
                seconds.append(time.perf_counter() - begun)

    threads = [threading.Thread(target=write, args=(run_id,)) for run_id in run_ids]
    for thread in threads:
        thread.start()
    begun, busy = time.perf_counter(), server.processor_seconds()
    end[0] = begun + SECONDS
    begin.wait()
    for thread in threads:
        thread.join()
    taken = time.perf_counter() - begun
    cost = (server.processor_seconds() - busy) / len(seconds)
    ordered = sorted(seconds)
    return len(seconds) / taken, 1e3 * statistics.median(ordered), 1e3 * ordered[int(0.99 * len(ordered))], 1e3 * cost


def leaderboard(server: Server, experiment_id: str) -> tuple[float, float]:
    """For the 50 best: seconds, and the server's processor seconds."""
    asked = {
        "experiment_ids": [experiment_id],
        "filter": "tags.kind != 'sweep' and tags.kind != 'job'",
        "order_by": ["metrics.`best_val_accuracy` DESC"],
        "max_results": 50,
    }
    with requests.Session() as session:
        begun, busy = time.perf_counter(), server.processor_seconds()
        assert len(server.post("runs/search", asked, session)["runs"]) == 50
        return time.perf_counter() - begun, server.processor_seconds() - busy


def commands(server: Server, runs: int) -> str:
    """The seconds of each command, from its start to its end."""
    lines = []
    for name, words in COMMANDS.items():
        if name == "compare, all" and runs > MOST_COMPARED:
            continue
        command, begun = [sys.executable, "-m", "cifar_mlflow", *words], time.perf_counter()
        done = subprocess.run(command, env=server.environment, capture_output=True, text=True)
        lines.append(f"{name} {time.perf_counter() - begun:.1f} s")
        assert done.returncode == 0 or name == "doctor", done.stderr
    return "; ".join(lines)


def told(values: list[float], form: str) -> str:
    low, middle, high = (format(each, form) for each in (min(values), statistics.median(values), max(values)))
    return f"{middle} ({low} to {high})"


def main() -> None:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 3
    sizes = [int(each) for each in sys.argv[2:]] or [1_000, 10_000, 100_000]
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True).stdout
    print(f"{datetime.date.today()}, commit {commit.strip()}, {os.cpu_count()} cores, {platform.processor() or 'x86'}")
    print(f"load before the start: {os.getloadavg()[0]:.1f}; {rounds} rounds")
    directory = Path(tempfile.mkdtemp(prefix="cifar-mlflow-benchmark-", dir="/tmp"))
    directory.chmod(0o755)  # PostgreSQL's user works in it
    try:
        with object_store(directory) as endpoint:
            server = Server(directory, endpoint)
            try:
                measure(server, endpoint, rounds, sizes)
            finally:
                server("stop")
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def measure(server: Server, endpoint: str, rounds: int, sizes: list[int]) -> None:
    run_id, _ = training(server, 1)  # which makes the experiment
    size = artifact_bytes(endpoint)
    (_, one), (_, nine) = training(server, 1), training(server, 9)
    rows = {table: int(server.sql(f"SELECT count(*) FROM {table} WHERE run_uuid = '{run_id}'")) for table in CHANGES}
    each = f"{(nine - one) / 8:.1f} requests an epoch, {one - (nine - one) / 8:.0f} besides"
    print(f"a training: {each}; {size / 1e6:.2f} MB of artifacts, with models; {rows}")
    with requests.Session() as session:
        found = server.post("experiments/search", {"max_results": 10}, session)["experiments"]
        experiment_id = next(each["experiment_id"] for each in found if each["name"] == "digits")
        made = [server.post("runs/create", {"experiment_id": experiment_id}, session) for _ in range(max(CLIENTS))]
    run_ids = [each["run"]["info"]["run_id"] for each in made]
    print("clients  writes a second, median request, slowest of a hundred, processor time a write")
    for clients in CLIENTS:
        found_ones = [writes(server, run_ids[:clients]) for _ in range(rounds)]
        rate, *others = ([each[number] for each in found_ones] for number in range(4))
        print(f"{clients:7}  {told(rate, '.0f')}, {' ms, '.join(told(each, '.0f') for each in others)} ms", flush=True)
    there = 0
    for runs in sizes:
        for table, changes in CHANGES.items():
            server.sql(COPIES.format(table=table, changes=changes, first=there + 1, last=runs, run_id=run_id))
        server.sql(SWEEP.format(first=there + 1, last=runs))
        server.sql("VACUUM ANALYZE")
        there = runs
        leaderboard(server, experiment_id)  # the first after so large a change is of no interest
        seconds = [leaderboard(server, experiment_id) for _ in range(rounds)]
        rate = [writes(server, run_ids[:8]) for _ in range(rounds)]
        database = float(server.sql("SELECT pg_database_size('mlflow')")) / 1e6
        wall, busy = ([each[number] for each in seconds] for number in range(2))
        line = f"leaderboard {told(wall, '.2f')} s, {told(busy, '.2f')} s of processors; 8 clients write "
        line += f"{told([each[0] for each in rate], '.0f')} a second, {told([each[3] for each in rate], '.0f')} ms each"
        print(f"{runs:,} runs: {line}, the database has {database:,.0f} MB", flush=True)
        print(f"    {commands(server, runs)}", flush=True)


if __name__ == "__main__":
    main()
