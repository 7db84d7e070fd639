"""What a tracking server answers, and what the user is told of it."""

import http.server
import json
import socket
import threading
import time

import pytest
import requests
from support import QuietServer

from cifar_mlflow.errors import TrackingError
from cifar_mlflow.tracking.store import translated_errors

LOST = "7401" + "0" * 28  # a run's id that has a status in it


@pytest.fixture
def answering():
    """Starts a server that answers everything alike (None: not at all, but closes the connection); returns its URI."""
    started = []

    def start(status, body=b"", seconds=0.0):
        class Answer(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                time.sleep(seconds)
                if status is not None:
                    self.send_response(status)
                    self.send_header("Content-Length", str(len(body)))
                    self.end_headers()
                    self.wfile.write(body)

            def log_message(self, *words):
                pass

        server = QuietServer(("127.0.0.1", 0), Answer)
        started.append(server)
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        return f"http://user:secret@127.0.0.1:{server.server_port}"

    yield start
    for server in started:
        server.shutdown()
        server.server_close()


def as_json(code, message):
    return json.dumps({"error_code": code, "message": message}).encode()


@pytest.mark.parametrize(
    ("status", "body", "message"),
    [
        (404, as_json("RESOURCE_DOES_NOT_EXIST", f"Run {LOST} not found"), f"URI: RESOURCE_DOES_NOT_EXIST: Run {LOST}"),
        (400, as_json("INVALID_PARAMETER_VALUE", "Connection timed out"), "URI: INVALID_PARAMETER_VALUE: Connection"),
        (400, as_json("BAD_REQUEST", "API request to 403"), "URI: BAD_REQUEST: API request to 403"),
        (401, b"who are you?", "URI refuses access (API request to endpoint /api/2.0/mlflow/runs/get failed"),
        (403, b"no", "URI refuses access (API request to endpoint"),
        (
            403,
            as_json("PERMISSION_DENIED", "not yours"),
            "URI refuses access (PERMISSION_DENIED: not yours); the user user may not do this",
        ),
        (
            404,
            b"<html>",
            "no MLflow server answers at URI (API request to endpoint /api/2.0/mlflow/runs/get failed with",
        ),
        (200, b"<html>", "no MLflow server answers at URI (API request to endpoint was successful but the response"),
        (500, b"oops", "no MLflow server answers at URI (too many 500 error responses). Start one (`mlflow server`)"),
        (
            503,
            as_json("TEMPORARILY_UNAVAILABLE", "x"),
            "no MLflow server answers at URI (too many 503 error responses)",
        ),
        (None, b"", "no MLflow server answers at URI (('Connection aborted.', RemoteDisconnected('Remote end closed"),
    ],
)
def test_what_a_server_answers(answering, told, status, body, message):
    assert told(answering(status, body)).startswith(message)


def test_a_server_that_is_too_slow(answering, told):
    assert told(answering(200, b"{}", seconds=3)).startswith("no MLflow server answers at URI (timed out)")


def test_a_port_at_which_nothing_listens(told):
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))
        uri = f"http://user:secret@127.0.0.1:{reserved.getsockname()[1]}"
        assert told(uri).startswith("no MLflow server answers at URI (Connection refused). Start one")


def test_artifacts_that_a_server_refuses(answering, work):
    for status, message in ((403, "URI refuses access (403 Client Error"), (404, "URI: 404 Client Error")):
        with pytest.raises(TrackingError) as raised, translated_errors("URI"):
            requests.get(answering(status)).raise_for_status()
        assert str(raised.value).startswith(message)
