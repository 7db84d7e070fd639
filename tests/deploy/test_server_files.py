"""What deploy/server writes and is given, without a server: settings, passwords, faults; compose.yaml as a file."""

from __future__ import annotations

import os
import re
import stat
import subprocess
import tomllib

import pytest
import yaml
from servers import BIN, environment
from team import PATH, ROOT

DEPLOY = ROOT / "deploy" / "server"
WORDS = ("--name", "tracking.example", "--artifacts", "s3://mlflow", "--endpoint", "http://objects:7070")
NO_SECRETS = {"POSTGRES_USER": "mlflow", "POSTGRES_DB": "mlflow", "VGW_HEALTH": "/health"}


@pytest.fixture
def script(tmp_path):
    """Calls deploy/server/server in a directory of its own; returns exit code and what it said."""

    def call(*words: str) -> tuple[int, str]:
        variables = environment(CIFAR_MLFLOW_SERVER=str(tmp_path / "home"), PATH=PATH)
        done = subprocess.run([DEPLOY / "server", *words], env=variables, capture_output=True, text=True, check=False)
        return done.returncode, done.stdout + done.stderr

    return call


def settings(directory) -> dict[str, str]:
    lines = (directory / "home" / "server.env").read_text().splitlines()
    return dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))


def test_settings_are_drawn_once_and_hold_what_compose_asks_for(script, tmp_path):
    database = ("--database", "postgresql+psycopg://mlflow@database/mlflow", "--tls-port", "8443")
    assert script("settings", *WORDS, *database)[0] == 0
    first = settings(tmp_path)
    assert script("settings")[0] == 0
    assert settings(tmp_path) == first
    for name in ("server.env", "basic_auth.ini"):
        assert stat.S_IMODE((tmp_path / "home" / name).stat().st_mode) == 0o600
    hosts = first["MLFLOW_SERVER_ALLOWED_HOSTS"].split(",")
    assert {"tracking.example", "tracking.example:8443", "127.0.0.1:5000"} <= set(hosts)
    assert first["MLFLOW_SERVER_ENABLE_JOB_EXECUTION"] == "false"
    assert "database_uri = postgresql+psycopg://mlflow@database/mlflow_users" in (
        (tmp_path / "home" / "basic_auth.ini").read_text()
    )
    nginx = (tmp_path / "home" / "nginx.conf").read_text()
    assert "listen 8443 ssl;" in nginx
    assert not re.search(r"@[A-Z_]+@", nginx)
    asked = set(re.findall(r"\$\{(\w+)", (DEPLOY / "compose.yaml").read_text()))
    assert {"PGPASSWORD", "AWS_SECRET_ACCESS_KEY"} <= asked <= set(first)
    assert all(first[name] for name in asked)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("setup",), "--name is missing"),
        (("setup", "--name", "x"), "--artifacts is missing"),
        (("setup", "--name", "x", "--artifacts", "s3://y"), "--keys is missing"),
        (("setup", "--name"), "--name needs a value"),
        (("setup", "--nmae", "x"), "setup knows no --nmae"),
        (("start",), "server.env cannot be read; `server setup` writes it"),
        (("nonsense",), "server backup DIRECTORY"),
    ],
)
def test_what_is_missing_is_named(script, words, message):
    code, told = script(*words)
    assert (code, message in told) == (2, True), told


def test_stop_ends_no_other_program_that_has_got_the_number(script, tmp_path):
    script("settings", *WORDS, "--database", "postgresql+psycopg://mlflow@database/mlflow")
    with subprocess.Popen(["sleep", "60"]) as other:
        (tmp_path / "home" / "server.pid").write_text(str(other.pid))
        assert script("stop") == (0, "")
        assert other.poll() is None
        other.kill()


def test_compose_publishes_nginx_alone_and_has_no_password():
    compose = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
    services = compose["services"]
    assert {name: each.get("ports") for name, each in services.items() if "ports" in each} == {
        "mlflow": [":".join(2 * ["${MLFLOW_TLS_PORT:?use --env-file}"])]
    }
    assert services["nginx"]["network_mode"] == "service:mlflow"
    assert all("healthcheck" in each for each in services.values())
    given = {name: value for each in services.values() for name, value in each.get("environment", {}).items()}
    assert all(NO_SECRETS.get(name) == value or value.startswith("${") for name, value in given.items())
    copied = re.findall(r"^COPY (.*) /deploy/$", (DEPLOY / "Dockerfile").read_text(), re.MULTILINE)
    assert all((DEPLOY / name).exists() for line in copied for name in line.split())


def test_compose_is_one_by_the_specification_s_schema(tmp_path):
    def told(path):
        command = [BIN / "check-jsonschema", "--builtin-schema", "vendor.compose-spec", path]
        return subprocess.run(command, capture_output=True, text=True, check=False).stdout

    assert told(DEPLOY / "compose.yaml") == "ok -- validation done\n"
    wrong = (DEPLOY / "compose.yaml").read_text().replace("condition: service_healthy", "condition: healthy")
    (tmp_path / "compose.yaml").write_text(wrong)
    assert "'healthy' is not one of ['service_started', 'service_healthy'" in told(tmp_path / "compose.yaml")


def test_the_server_has_the_packages_of_the_project_in_the_same_versions():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    bounds = {re.split(r"[\[<>=]", each)[0]: re.sub(r"^[\w-]+(\[.*\])?", "", each)
              for each in [*project["dependencies"], *project["optional-dependencies"]["test"]]}  # fmt: skip
    lines = [line for line in (DEPLOY / "requirements.txt").read_text().splitlines() if not line.startswith("#")]
    for line in lines:
        name, bound = re.match(r"([\w-]+)(?:\[\w+\])?(.*)", line).groups()
        assert bounds[name] == bound, line
    assert os.access(DEPLOY / "server", os.X_OK)
