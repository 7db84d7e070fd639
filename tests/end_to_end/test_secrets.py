"""A password in the store's address is nowhere afterwards: not in the store, on the disk, or on the terminal."""

import base64
import itertools
import os
from pathlib import Path

import pytest
import yaml
from proxy import ANSWERS, proxy_before
from servers import mlflow_server
from support import TINY_TRAINING

SECRET = "geheim-7391"
# As it stands in an address, and as it stands in a header.
FORMS = (SECRET.encode(), base64.b64encode(f"somebody:{SECRET}".encode()).rstrip(b"="))


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    directory = tmp_path_factory.mktemp("secrets")
    with mlflow_server(directory) as address:
        yield address, directory


def with_secret(address):
    return address.replace("http://", f"http://somebody:{SECRET}@")


def files_with_the_secret(*directories):
    files = [path for directory in directories for path in Path(directory).rglob("*") if path.is_file()]
    assert files
    return [path for path in files if any(form in path.read_bytes() for form in FORMS)]


@pytest.fixture
def told(cifar, monkeypatch, work, tiny):
    """Runs a command; whatever it comes to, the secret is not told."""
    monkeypatch.setenv("CIFAR_MLFLOW_STATE", str(work / "state"))
    (work / "sweep.yaml").write_text(
        yaml.safe_dump(
            {
                "name": "secret",
                "base": {"dataset": str(tiny), "epochs": 1, "batch_size": 8, "scheduler": "none"},
                "space": {"activation": ["relu"]},
                "workers": 1,
            }
        )
    )

    def run(*words):
        outcome = cifar(*words)
        assert not any(form in outcome.output.encode() for form in FORMS), outcome.output
        assert "Traceback" not in outcome.output
        assert "this should not have happened" not in outcome.output
        return outcome

    return run


@pytest.mark.parametrize("modes", [("401",), pytest.param((*ANSWERS, "refuse"), marks=pytest.mark.long)])
def test_nothing_of_it_is_left_by_any_command(told, server, monkeypatch, work, tiny, modes):
    address, directory = server
    training = ("train", "--dataset", tiny, *TINY_TRAINING)
    with proxy_before(address) as proxy:
        assert told(*training, "--offline", "--run-name", "later").code == 0
        monkeypatch.setenv("MLFLOW_TRACKING_URI", with_secret(proxy.address))
        trained = told(*training)
        assert trained.code == 0, trained.output
        run_id = trained.stdout.split()[1]
        for words in (
            ("check",),
            ("sync",),
            ("evaluate", run_id),
            ("promote", run_id),
            ("history", "tiny"),
            ("sweep", "sweep.yaml"),
            ("compare", "secret"),
            ("doctor",),
        ):
            assert told(*words).code == 0, words
        assert told("evaluate", "0" * 32).code == 6
        commands = (("evaluate", run_id), ("promote", run_id), ("sweep", "sweep.yaml"))
        for mode, words in itertools.product(modes, (("sync",), training, *commands)):
            proxy.switch(mode)
            assert told(*words).code == 4, (mode, words)
        assert told("doctor").code == 9
    assert os.environ["MLFLOW_TRACKING_URI"].count(SECRET) == 1  # it was there all the time
    assert files_with_the_secret(work.parent, directory) == []


LONG = [pytest.param(mode, marks=pytest.mark.long) for mode in ("refuse", "500", "garbage")]


@pytest.mark.parametrize("mode", ["401", *LONG])
def test_nothing_of_it_is_left_by_a_server_that_fails_in_the_middle(told, server, monkeypatch, work, tiny, mode):
    from cifar_mlflow.tracking.outbox import spooled_recorder

    monkeypatch.setattr(spooled_recorder, "DRAIN_TIMEOUT", 1.0)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
    with proxy_before(server[0]) as proxy:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", with_secret(proxy.address))
        real = spooled_recorder.SpooledRecorder.log_metrics

        def switched(self, *arguments, **options):
            proxy.switch(mode)
            real(self, *arguments, **options)

        monkeypatch.setattr(spooled_recorder.SpooledRecorder, "log_metrics", switched)
        assert told("train", "--dataset", tiny, *TINY_TRAINING).code == 4
        assert (work / "state" / "spool").exists()
        assert told("sync").code == 4
        assert told("doctor", "--fix").code == 9
        assert files_with_the_secret(work.parent, server[1]) == []
        proxy.switch("pass")
        assert told("doctor", "--fix").code == 0
        assert told("doctor").code == 0
    assert files_with_the_secret(work.parent, server[1]) == []
