"""deploy/server, started by its own scripts: a team at work, who may do what, a backup that brings everything back."""

from __future__ import annotations

import contextlib
import functools
import os
import shutil
import stat
import subprocess
import time

import forked
import mlflow
import pytest
import requests
import yaml
from guides import GuideSession, in_a_clone, of_team_server, run_page, settings_of_jobs, wait_for_jobs
from mlflow.exceptions import MlflowException
from slurm import cluster
from support import TINY_TRAINING
from team import SCRIPT, SECRETS, become, beside, team_server, write_points

LONG = pytest.mark.long


@pytest.fixture(scope="module")
def server():
    with team_server() as started:
        yield started


@pytest.fixture(scope="module")
def team(server):
    """The variables of two users and of the admin, whose experiment they share."""
    server("add-experiment", "tiny")
    return {"ann": server.add_user("ann"), "bob": server.add_user("bob"), "admin": server.admin}


@pytest.fixture
def as_user(server, team, cifar, monkeypatch):
    """Makes this process one of the team; returns MLflow's client."""

    def change(name, **variables):
        known = {"MLFLOW_TRACKING_URI": server.address, "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0"}
        for key, value in {**known, **team[name], **variables}.items():
            monkeypatch.setenv(key, value)
        mlflow.set_tracking_uri(None)
        return mlflow.MlflowClient(server.address)

    return change


def write_spec(path, tiny, name: str, activations: tuple[str, ...] = ("relu",)):
    base = {"dataset": str(tiny), "epochs": 2, "batch_size": 8, "scheduler": "none", "precision": "float32"}
    spec = {"name": name, "base": base, "space": {"activation": list(activations)}, "repeats": 1, "workers": 1}
    path.write_text(yaml.safe_dump({**spec, "log_models": False}))
    return path


def at_once(server, team, as_user, tiny, work, points: int) -> str:
    """8 writers, 2 sweeps and a promotion at the same time, by two users; returns the champion's run."""
    client, activations = as_user("ann"), ("relu",) if points < 100 else ("relu", "elu", "prelu", "gelu")
    outcome = forked.run(work, "train", "--dataset", tiny, *TINY_TRAINING, tracking_uri=server.address,
                         change=functools.partial(become, team["ann"]))  # fmt: skip
    assert outcome.code == 0, outcome.output
    champion = outcome.stdout.split()[1]
    experiment_id = client.get_experiment_by_name("tiny").experiment_id
    written = [client.create_run(experiment_id, tags={"kind": "other"}).info.run_id for _ in range(8)]
    started = []
    for user, words in (
        ("ann", ("sweep", write_spec(work / "one.yaml", tiny, "one", activations))),
        ("bob", ("sweep", write_spec(work / "two.yaml", tiny, "two", activations))),
        ("ann", ("promote", champion)),
    ):
        me = functools.partial(become, team[user])
        started.append(forked.start(work, *words, tracking_uri=server.address, change=me))
    writers = [forked.start_call(write_points, server.address, run_id, points, team["ann"]) for run_id in written]
    outcomes = [each.wait(900) for each in started]
    for writer in writers:
        writer.join(120)
    assert [each.code for each in outcomes] == [0, 0, 0], [each.output for each in outcomes]
    for run_id in written:
        assert [point.step for point in client.get_metric_history(run_id, "loss")] == list(range(points))
        client.set_terminated(run_id)
    runs = client.search_runs([experiment_id])
    assert {run.info.status for run in runs} == {"FINISHED"}
    for sweep in ("one", "two"):  # its trials and their parent
        assert sum(run.data.tags.get("sweep") == sweep for run in runs) == 1 + len(activations)
    assert str(client.get_registered_model("tiny").aliases["champion"]) == "1"
    return champion


@pytest.mark.parametrize("points", [20, pytest.param(300, marks=LONG)])
def test_a_team_at_work_then_backup_wipe_and_restore(server, team, as_user, tiny, work, cifar, points):
    if "tiny" in [model.name for model in as_user("admin").search_registered_models()]:
        pytest.skip("another test of this server has been here")
    champion = at_once(server, team, as_user, tiny, work, points)

    # A user trains, and deletes nothing of another's, nor anything that is shared.
    client = as_user("bob")
    version = client.get_model_version_by_alias("tiny", "champion")
    for forbidden in (
        lambda: client.delete_run(champion),
        lambda: client.delete_experiment(client.get_run(champion).info.experiment_id),
        lambda: client.delete_registered_model("tiny"),
        lambda: client.delete_model_version("tiny", version.version),
    ):
        with pytest.raises(MlflowException, match="Permission denied"):
            forbidden()

    # gc would take nothing that an alias names; and none runs while a backup does.
    admin = as_user("admin")
    admin.delete_run(champion)
    assert "gc would remove what an alias names: tiny@champion" in server("gc", code=2).stderr
    admin.restore_run(champion)
    server("gc", "0s")

    backup = work / "backup"
    server("backup", backup)
    server("backup", backup)  # brought up to date
    rows, files = server.rows(), server.files()
    assert len(files) > 20
    server.wipe()
    server("setup")
    dump = backup / "mlflow.dump"
    shutil.copy(dump, work / "kept")
    dump.write_bytes(dump.read_bytes()[:-1])
    assert "is damaged; nothing was changed" in server("restore", backup, code=2).stderr
    shutil.copy(work / "kept", dump)
    server("restore", backup)
    assert server.files() == files
    assert server.rows() == rows
    assert "is not empty" in server("restore", backup, code=2).stderr
    server("start")

    as_user("ann")
    outcome = cifar("doctor")
    assert outcome.code == 0, outcome.output
    (model,) = [key for key in files if version.source.removeprefix("models:/") in key and key.endswith("MLmodel")]
    server.damage(model)
    outcome = cifar("doctor")
    assert (outcome.code, "MLmodel was changed" in outcome.stdout) == (9, True), outcome.stdout


def test_no_secret_is_read_by_others_or_stands_on_a_command_line(server):
    assert stat.S_IMODE((server.home / "server.env").stat().st_mode) == 0o600
    assert stat.S_IMODE((server.home / "basic_auth.ini").stat().st_mode) == 0o600
    secrets = [server.settings[name] for name in SECRETS]
    assert len(set(secrets)) == len(secrets)
    listed = subprocess.run(["ps", "-ww", "-eo", "args"], capture_output=True, text=True, check=True).stdout
    assert "mlflow server --app-name basic-auth" in listed.replace("/mlflow server", " mlflow server")
    log = (server.home / "server.log").read_text()
    assert not [secret for secret in secrets if secret in listed + log]
    assert not [secret for secret in secrets[2:] if secret in SCRIPT.read_text()]
    (server.home / "server.env").chmod(0o640)
    assert "can be read by others" in server("status", code=2).stderr
    (server.home / "server.env").chmod(0o600)


@pytest.mark.parametrize(
    ("sent", "message"),
    [
        ({"MLFLOW_TRACKING_PASSWORD": "wrong"}, "the password of ann is wrong, has expired or was withdrawn"),
        ({"MLFLOW_TRACKING_USERNAME": ""}, "set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD"),
        ({"MLFLOW_TRACKING_PASSWORD": ""}, "the user ann was sent without a password"),
        ({"MLFLOW_TRACKING_USERNAME": "", "MLFLOW_TRACKING_TOKEN": "x"}, "it wants a user and a password"),
        ({"MLFLOW_TRACKING_URI": "http://127.0.0.1:9"}, "no MLflow server answers at http://127.0.0.1:9"),
    ],
)
def test_who_is_not_let_in_is_told_so_at_once_and_leaves_nothing(as_user, cifar, tiny, work, sent, message):
    def running() -> set[str]:
        client = as_user("admin", MLFLOW_TRACKING_TOKEN="")
        everywhere = [experiment.experiment_id for experiment in client.search_experiments()]
        return {run.info.run_id for run in client.search_runs(everywhere, "attributes.status = 'RUNNING'")}

    before = running()
    as_user("ann", **sent)
    spec = write_spec(work / "sweep.yaml", tiny, "refused")
    for words in (("train", "--dataset", tiny), ("sweep", spec), ("promote", "0" * 32), ("compare", "refused")):
        begun = time.monotonic()
        outcome = cifar(*words)
        busy = max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1))  # others that wait for the same processors
        assert time.monotonic() - begun < 15 * busy
        assert (outcome.code, outcome.stderr.count("error:")) == (4, 1), outcome.output
        assert message in outcome.stderr
        assert "Traceback" not in outcome.output
    assert not list((work.parent / "state").glob("spool/*"))
    assert running() == before


def test_a_password_that_is_withdrawn_in_the_middle_of_a_training(server, team, as_user, tiny, work):
    client = as_user("admin")
    words = ("train", "--dataset", tiny, *TINY_TRAINING, "--epochs", 60, "--run-name", "withdrawn")
    me = functools.partial(become, server.add_user("carol"))
    training = forked.start(work, *words, tracking_uri=server.address, change=me)

    def the_run():
        return client.search_runs([client.get_experiment_by_name("tiny").experiment_id], "run_name = 'withdrawn'")

    deadline = time.monotonic() + 60
    while not any("val_accuracy" in run.data.metrics for run in the_run()):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    anew = server.add_user("carol")  # the old password is of no more use
    outcome = training.wait()
    assert outcome.code == 4, outcome.output
    assert "the password of carol is wrong, has expired or was withdrawn" in outcome.stderr
    assert "cifar-mlflow sync" in outcome.stderr
    (run,) = the_run()
    assert len(client.get_metric_history(run.info.run_id, "val_accuracy")) < 60
    me = functools.partial(become, anew)
    assert forked.run(work, "sync", tracking_uri=server.address, change=me).code == 0
    assert client.get_run(run.info.run_id).info.status == "FINISHED"
    steps = [point.step for point in client.get_metric_history(run.info.run_id, "val_accuracy")]
    assert steps == list(range(1, 61))


def test_an_offline_training_is_delivered_by_a_user(server, as_user, cifar, tiny):
    client = as_user("ann")  # to whom the server denies a run that is not there yet
    words = ("train", "--dataset", tiny, *TINY_TRAINING, "--run-name", "offline")
    assert cifar(*words, "--offline").code == 0
    outcome = cifar("sync")
    assert outcome.code == 0, outcome.output
    (run,) = client.search_runs([client.get_experiment_by_name("tiny").experiment_id], "run_name = 'offline'")
    assert run.info.status == "FINISHED"


@pytest.mark.parametrize("all_commands", [False, pytest.param(True, marks=LONG)])
def test_tls_and_tokens_by_nginx(server, team, as_user, cifar, tiny, work, all_commands):
    with server.behind_nginx(token="of-ann", user=team["ann"]) as (address, with_token):
        certificate = {"MLFLOW_TRACKING_SERVER_CERT_PATH": str(server.home / "certificate.pem")}
        as_user("ann", MLFLOW_TRACKING_URI=address, **certificate)
        assert cifar("check").stdout == f"tracking to {address}\n"
        outcome = cifar("train", "--dataset", tiny, *TINY_TRAINING)  # with models, which are uploaded whole
        assert outcome.code == 0, outcome.output
        search = f"{address}/ajax-api/2.0/mlflow/experiments/search"
        verify = certificate["MLFLOW_TRACKING_SERVER_CERT_PATH"]
        for origin, code in ((address, 401), ("https://elsewhere.example", 403)):  # as a browser asks for a page
            answer = requests.post(search, json={"max_results": 1}, headers={"Origin": origin}, verify=verify)
            assert answer.status_code == code

        nobody = {"MLFLOW_TRACKING_USERNAME": "", "MLFLOW_TRACKING_PASSWORD": ""}
        tokens = {"MLFLOW_TRACKING_URI": with_token, **nobody}
        as_user("ann", **tokens, MLFLOW_TRACKING_TOKEN="of-bob")
        assert "the token in MLFLOW_TRACKING_TOKEN is wrong, has expired" in cifar("check").stderr
        as_user("ann", **tokens, MLFLOW_TRACKING_TOKEN="of-ann")
        assert cifar("check").code == 0
        if not all_commands:
            return
        trained = cifar("train", "--dataset", tiny, *TINY_TRAINING)
        assert trained.code == 0, trained.output
        me = functools.partial(become, {"MLFLOW_TRACKING_TOKEN": "of-ann"})
        spec = write_spec(work / "tokens.yaml", tiny, "tokens")
        for words in (("sweep", spec), ("sync",), ("promote", trained.stdout.split()[1], "--name", "by-token")):
            outcome = forked.run(work, *words, tracking_uri=tokens["MLFLOW_TRACKING_URI"], change=me)
            assert outcome.code == 0, outcome.output


# ------------------------------------------------------------------------------------------------------------ guides


@pytest.mark.parametrize("short", [True, pytest.param(False, marks=LONG)])
def test_the_commands_of_the_guide(server, tmp_path, monkeypatch, short):
    with beside(server, "guide") as other:
        monkeypatch.setenv("CIFAR_MLFLOW_SERVER", str(other.home))
        session = GuideSession(of_team_server(other, tmp_path))
        with in_a_clone(tmp_path, short):
            assert run_page("team-server.md", session, short=short) >= 8
        assert "mlflow.dump" in (tmp_path / "backup" / "SHA256SUMS").read_text()


@pytest.mark.parametrize("short", [True, pytest.param(False, marks=LONG)])
def test_the_commands_of_the_way_to_a_cluster(server, tmp_path, monkeypatch, short):
    monkeypatch.setenv("CIFAR_MLFLOW_SERVER", str(server.home))
    stands_for = {"https://tracking.example": server.address, "add-user ann": "add-user scale"}
    with contextlib.ExitStack() as stack:
        slurm = None if short else stack.enter_context(cluster())
        if slurm:
            monkeypatch.setenv("SLURM_CONF", slurm.configuration)
            settings = settings_of_jobs(tmp_path, server.address)
            monkeypatch.setenv("CIFAR_MLFLOW_ENV", str(settings))
            stands_for["~/.config/cifar-mlflow.env"] = str(settings)
        stack.enter_context(in_a_clone(tmp_path, short))
        session = GuideSession(stands_for, after=lambda text: wait_for_jobs(slurm, text))
        assert run_page("scale.md", session, short=short) >= 4
