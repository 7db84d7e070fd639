"""A team's server as deploy/server sets it up: PostgreSQL, moto's S3 server, MLflow with users; nginx before it."""

from __future__ import annotations

import base64
import contextlib
import getpass
import hashlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from servers import BIN, environment, free_port, running

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "deploy" / "server" / "server"
PROGRAMS = ("rclone", "nginx", "openssl", "curl", "psql")
PATH = f"{BIN}{os.pathsep}{os.environ['PATH']}{os.pathsep}/usr/sbin"
KEYS = "AWS_ACCESS_KEY_ID=moto\nAWS_SECRET_ACCESS_KEY=moto-s-key\n"
SECRETS = ("PGPASSWORD", "AWS_SECRET_ACCESS_KEY", "MLFLOW_AUTH_ADMIN_PASSWORD", "MLFLOW_FLASK_SERVER_SECRET_KEY")


# A server that knows one token, and passes on what has it as what a user sends.
TOKENS = """
server {{
    listen 127.0.0.1:{port};
    client_max_body_size 0;
    location / {{
        if ($http_authorization != "Bearer {token}") {{ return 401; }}
        proxy_set_header Authorization "Basic {basic}";
        proxy_set_header Host 127.0.0.1:{backend};
        proxy_pass http://127.0.0.1:{backend};
    }}
}}
"""


@dataclass(frozen=True)
class Done:
    code: int
    stdout: str
    stderr: str


@dataclass(frozen=True)
class TeamServer:
    """Called with a verb and its words, it is deploy/server/server; `endpoint` is that of the S3 store."""

    home: Path
    endpoint: str
    bucket: str = "mlflow"

    def __call__(self, *words: object, code: int = 0) -> Done:
        more = {"CIFAR_MLFLOW_SERVER": str(self.home), "PATH": PATH}
        # To a file: the server that `start` leaves behind would keep a pipe open.
        with tempfile.TemporaryFile("w+") as stdout, tempfile.TemporaryFile("w+") as stderr:
            command = [str(SCRIPT), *map(str, words)]
            done = subprocess.run(command, env=environment(**more), stdout=stdout, stderr=stderr, check=False)
            stdout.seek(0)
            stderr.seek(0)
            found = Done(done.returncode, stdout.read(), stderr.read())
        assert found.code == code, f"{words}: {found}"
        return found

    @property
    def settings(self) -> dict[str, str]:
        lines = (self.home / "server.env").read_text().splitlines()
        return dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.settings['MLFLOW_PORT']}"

    @property
    def admin(self) -> dict[str, str]:
        return credentials("admin", self.settings["MLFLOW_AUTH_ADMIN_PASSWORD"])

    def add_user(self, name: str) -> dict[str, str]:
        """The variables by which the user is known, with a new password."""
        return dict(line.split("=", 1) for line in self("add-user", name).stdout.split())

    def rows(self) -> list[str]:
        """All that both databases hold."""
        found: list[str] = []
        for name in ("mlflow", "mlflow_users"):
            uri = f"postgresql://mlflow@127.0.0.1:{self.settings['OWN_DATABASE_PORT']}/{name}"
            variables = {**os.environ, "PGPASSWORD": self.settings["PGPASSWORD"]}
            dumped = subprocess.run(
                ["pg_dump", "--data-only", uri], env=variables, capture_output=True, text=True, check=True
            ).stdout
            # pg_dump draws a new key each time for psql's restricted mode.
            found += sorted(line for line in dumped.splitlines() if not line.startswith(("\\restrict", "\\unrestrict")))
        return found

    def _s3(self):
        import boto3

        keys = {"aws_access_key_id": "moto", "aws_secret_access_key": "moto-s-key", "region_name": "us-east-1"}
        return boto3.resource("s3", endpoint_url=self.endpoint, **keys).Bucket(self.bucket)

    def files(self) -> dict[str, str]:
        """The digest of each artifact by its key."""
        objects = self._s3().objects.all()
        return {each.key: hashlib.sha256(each.get()["Body"].read()).hexdigest() for each in objects}

    def damage(self, key: str) -> None:
        self._s3().put_object(Key=key, Body=b"damaged")

    def set_up(self) -> Done:
        keys = self.home.parent / "s3.keys"
        keys.write_text(KEYS)
        words = ("--name", "localhost", "--artifacts", "s3://mlflow", "--endpoint", self.endpoint, "--keys", keys)
        certificate = ("--certificate", self.home / "certificate.pem", "--key", self.home / "key.pem")
        ports = ("--port", free_port(), "--tls-port", free_port(), "--database-port", free_port())
        return self("setup", *words, "--workers", 1, *certificate, *ports)

    def wipe(self) -> None:
        """Nothing is left but the settings: neither a database nor a file."""
        self("stop")
        shutil.rmtree(self.home / "postgresql")
        self._s3().objects.all().delete()

    @contextlib.contextmanager
    def behind_nginx(self, token: str, user: dict[str, str]) -> Iterator[tuple[str, str]]:
        """The https address that nginx.conf makes, and one that takes the token for the user."""
        key, certificate = self.home / "key.pem", self.home / "certificate.pem"
        subject = ("-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost")
        command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", *subject]
        subprocess.run([*command, "-keyout", key, "-out", certificate], check=True, capture_output=True)
        whole, here = self.home / "whole.conf", free_port()
        basic = base64.b64encode(":".join(user.values()).encode()).decode()
        port, backend = free_port(), self.settings["MLFLOW_PORT"]
        tokens = TOKENS.format(port=port, token=token, basic=basic, backend=backend)
        ready = f"server {{ listen 127.0.0.1:{here}; return 200; }}"
        paths = "".join(
            f"{name}_temp_path {self.home}/{name};" for name in ("client_body", "proxy", "fastcgi", "uwsgi")
        )
        whole.write_text(
            f"daemon off; pid {self.home}/nginx.pid; error_log {self.home}/nginx.log; events {{}}\n"
            f"http {{ {paths} access_log off; include {self.home}/nginx.conf; {ready} {tokens} }}\n"
        )
        user = ["-g", "user root;"] if getpass.getuser() == "root" else []
        nginx = shutil.which("nginx", path=PATH) or "nginx"
        with running([nginx, "-c", whole, *user], self.home / "nginx.out", f"http://127.0.0.1:{here}"):
            yield f"https://localhost:{self.settings['MLFLOW_TLS_PORT']}", f"http://127.0.0.1:{port}"


def credentials(name: str, password: str) -> dict[str, str]:
    return {"MLFLOW_TRACKING_USERNAME": name, "MLFLOW_TRACKING_PASSWORD": password}


def become(variables: dict[str, str]) -> None:
    """In a process of `forked`: whose it is."""
    os.environ.update(variables)


def write_points(address: str, run_id: str, count: int, variables: dict[str, str]) -> None:
    """In a process of `forked`: one request a step."""
    import mlflow

    become(variables)
    client = mlflow.MlflowClient(address)
    for step in range(count):
        client.log_batch(run_id, metrics=[mlflow.entities.Metric("loss", 1 / (step + 1), step, step)])


@contextlib.contextmanager
def beside(server: TeamServer, bucket: str) -> Iterator[TeamServer]:
    """A server that is not set up yet, before the same object store."""
    directory = Path(tempfile.mkdtemp(prefix="cifar-mlflow-server-", dir="/tmp"))
    directory.chmod(0o755)
    other = TeamServer(directory / "home", server.endpoint, bucket)
    try:
        yield other
    finally:
        if (other.home / "server.env").exists():
            other("stop")
        shutil.rmtree(directory, ignore_errors=True)


def skip_if_missing() -> None:
    if missing := [program for program in PROGRAMS if not shutil.which(program, path=PATH)]:
        pytest.skip(f"not installed: {', '.join(missing)}")
    if not (list(Path("/usr/lib/postgresql").glob("*/bin/initdb")) or shutil.which("initdb")):
        pytest.skip("PostgreSQL is not installed")


@contextlib.contextmanager
def object_store(directory: Path) -> Iterator[str]:
    """The endpoint of an S3 store that keeps everything in memory."""
    port = free_port()
    command = [BIN / "moto_server", "--host", "127.0.0.1", "--port", str(port)]
    with running(command, directory / "moto.log", f"http://127.0.0.1:{port}/moto-api/data.json"):
        yield f"http://127.0.0.1:{port}"


@contextlib.contextmanager
def team_server() -> Iterator[TeamServer]:
    """A running server of its own, which the caller may stop; skips where a program is not installed."""
    skip_if_missing()
    # PostgreSQL's user cannot enter pytest's directories.
    directory = Path(tempfile.mkdtemp(prefix="cifar-mlflow-server-", dir="/tmp"))
    directory.chmod(0o755)
    try:
        with object_store(directory) as endpoint:
            server = TeamServer(directory / "home", endpoint)
            server.set_up()
            try:
                server("start")
                yield server
            finally:
                server("stop")
    finally:
        shutil.rmtree(directory, ignore_errors=True)
