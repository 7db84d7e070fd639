"""What a server's refusal asks for depends on what was sent to it; no password is ever told."""

import pytest

from cifar_mlflow.tracking import access

SERVER = "https://tracking.example:8443"
WITH_USER = "https://ann:secret@tracking.example:8443"
NAMES = {"user": "MLFLOW_TRACKING_USERNAME", "password": "MLFLOW_TRACKING_PASSWORD", "token": "MLFLOW_TRACKING_TOKEN"}


@pytest.fixture(autouse=True)
def _no_credentials_file(monkeypatch):
    monkeypatch.setattr("mlflow.utils.credentials._get_credentials_path", lambda: "/nowhere")


@pytest.mark.parametrize(
    ("uri", "variables", "status", "told"),
    [
        (SERVER, {}, 401, access.NEEDED),
        (SERVER, {}, 403, access.NEEDED),
        (SERVER, {"user": "ann"}, 401, "the user ann was sent without a password: set MLFLOW_TRACKING_PASSWORD"),
        (SERVER, {"user": "ann", "password": "secret"}, 401, "the password of ann is wrong, has expired or was"),
        (SERVER, {"user": "ann", "password": "secret"}, 403, "the user ann may not do this, or it is not there"),
        (SERVER, {"user": "ann", "password": "secret", "token": "x"}, 401, "the password of ann is wrong"),
        (SERVER, {"token": "secret"}, 401, "the token in MLFLOW_TRACKING_TOKEN is wrong, has expired or was withdrawn"),
        (SERVER, {"token": "secret"}, 403, "the holder of MLFLOW_TRACKING_TOKEN may not do this"),
        (SERVER, {"user": "ann", "token": "secret"}, 401, "the token in MLFLOW_TRACKING_TOKEN is wrong"),
        (WITH_USER, {"token": "secret"}, 401, "the password of ann is wrong"),
    ],
)  # fmt: skip
def test_the_remedy_names_what_was_sent(monkeypatch, uri, variables, status, told):
    for name, value in variables.items():
        monkeypatch.setenv(NAMES[name], value)
    remedy = access.remedy(uri, status, "no")
    assert remedy.startswith(told)
    assert "secret" not in remedy


def test_a_name_that_the_server_does_not_know():
    remedy = access.remedy(
        WITH_USER, 403, "Response body: 'Invalid Host header - possible DNS rebinding attack detected'"
    )
    assert remedy.endswith("adds tracking.example:8443 to its --allowed-hosts")


@pytest.mark.parametrize(
    ("variables", "reason", "told"),
    [
        ({"token": "x"}, "too many 500 error responses", True),
        ({"token": "x"}, "too many 503 error responses", False),
        ({"token": "x", "user": "ann", "password": "x"}, "too many 500 error responses", False),
        ({}, "too many 500 error responses", False),
    ],
)
def test_a_token_at_which_a_server_breaks_down(monkeypatch, variables, reason, told):
    for name, value in variables.items():
        monkeypatch.setenv(NAMES[name], value)
    assert bool(access.token_hint(SERVER, reason)) == told
