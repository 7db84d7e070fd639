"""What doctor finds at a server that a team shares: who gets in, by which name, whose clock, what gc would take."""

import http.server
import threading
import time
from email.utils import formatdate
from types import SimpleNamespace

import mlflow
import mlflow.utils.rest_utils
import pytest
from support import QuietServer

from cifar_mlflow.tracking.reading import team_server
from cifar_mlflow.tracking.registry import aliases, versions
from cifar_mlflow.tracking.store import Store


@pytest.fixture
def answering(monkeypatch):
    """Starts a server that answers POST by its Host, and everything with its clock; returns its store."""
    monkeypatch.setattr(team_server, "_own_addresses", lambda: [])
    started = []

    def start(status=401, to_another_name=403, clock=0.0, listen="127.0.0.1"):
        class Answer(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                here = self.headers["Host"] != team_server.ELSEWHERE
                self.send_response(200 if self.command == "GET" else status if here else to_another_name)
                self.send_header("Content-Length", "0")
                self.end_headers()

            do_POST = do_GET

            def date_time_string(self, timestamp=None):
                return formatdate(time.time() + clock, usegmt=True)

            def log_message(self, *words):
                pass

        server = QuietServer((listen, 0), Answer)
        started.append(server)
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        return Store(None, f"http://ann:secret@127.0.0.1:{server.server_port}", None)

    yield start
    for server in started:
        server.shutdown()
        server.server_close()


def texts(findings):
    return [finding.text for finding in findings]


@pytest.mark.parametrize("status", [401, 200])
def test_a_server_that_only_this_machine_reaches_may_do_without_passwords(answering, status):
    assert texts(team_server.open_doors(answering(status))) == []


def test_a_server_at_all_addresses_of_this_machine_is_open_to_the_world(answering, monkeypatch):
    server, closed = answering(200, listen="0.0.0.0"), answering(401, listen="0.0.0.0")
    monkeypatch.setattr(team_server, "_own_addresses", lambda: ["127.0.0.2"])
    (found,) = team_server.open_doors(server)
    assert found.severity == "warning"
    assert found.text.startswith("whoever reaches http://127.0.0.2:")
    assert "--app-name basic-auth" in found.remedy
    assert texts(team_server.open_doors(closed)) == []


@pytest.mark.parametrize(("status", "open_to_all"), [(200, 1), (401, 0)])
def test_a_server_elsewhere(answering, monkeypatch, status, open_to_all):
    monkeypatch.setattr(team_server, "_is_local", lambda host: False)
    found = texts(team_server.open_doors(answering(status)))
    assert sum("without a password" in text for text in found) == open_to_all
    assert sum("goes over the network as it is" in text for text in found) == 1
    assert not any("secret" in text for text in found)
    monkeypatch.setattr(team_server, "_search", lambda *words: 401 if len(words) == 1 else 403)
    assert texts(team_server.open_doors(Store(None, "https://ann:secret@tracking.example", None))) == []


def test_a_password_of_the_users_own_is_not_sent_by_netrc(answering, monkeypatch, tmp_path):
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login ann password secret\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    sent = []
    send = team_server._ask

    def watched(*words, **more):
        answer = send(*words, **more)
        sent.append(answer.request.headers.get("Authorization"))
        return answer

    monkeypatch.setattr(team_server, "_ask", watched)
    list(team_server.open_doors(answering()))
    assert sent == [None]


@pytest.mark.parametrize(("status", "told"), [(403, 0), (401, 1), (200, 1)])
def test_a_server_that_answers_to_any_name(answering, status, told):
    found = texts(team_server.open_doors(answering(to_another_name=status)))
    assert sum("answers to any name" in text for text in found) == told


@pytest.mark.parametrize(
    ("clock", "told"),
    [(0, None), (3, None), (60, "59 s behind the server's"), (-60, "59 s ahead of the server's")],
)
def test_clocks(answering, clock, told):
    found = texts(team_server.clocks(answering(clock=clock)))
    assert len(found) == (told is not None)
    assert told is None or any(each in found[0] for each in (told, told.replace("59", "60")))


@pytest.mark.parametrize("what", ["run", "experiment", None])
def test_what_gc_would_take_from_a_champion(store, training, logged, what):
    run_id = training()
    versions.ensure(store, "digits")
    aliases.move(
        store, "digits", "champion", "promote", versions.register(store, "digits", f"models:/{logged(run_id)}", run_id)
    )
    experiment_id = store.client.get_run(run_id).info.experiment_id
    if what == "run":
        store.client.delete_run(run_id)
    if what == "experiment":
        store.client.delete_experiment(experiment_id)
    found = list(team_server.endangered(store))
    if what is None:
        assert found == []
        return
    assert found[0].text.startswith("mlflow gc would remove what models:/digits@champion (version 1) has: its ")
    restore = {"run": f"runs restore --run-id {run_id}", "experiment": f"experiments restore -x {experiment_id}"}
    assert found[0].remedy == f"mlflow {restore[what]}"


@pytest.mark.parametrize(
    ("status", "text", "found"),
    [
        (200, mlflow.__version__, None),
        (200, ".".join([*mlflow.__version__.split(".")[:2], "99"]) + "\n", None),
        (200, "2.9.1", ("2.9.1", "pip install mlflow==2.9.1, or the other way round on the server")),
        (200, "<html>" + "x" * 100, ("<html>" + "x" * 34, f"pip install mlflow==<html>{'x' * 34}, or the other way")),
        (404, "2.9.1", ("unknown", "")),
    ],
)
def test_a_server_of_another_version_is_noted(store, monkeypatch, status, text, found):
    answer = SimpleNamespace(status_code=status, text=text)
    monkeypatch.setattr(mlflow.utils.rest_utils, "http_request", lambda *words, **more: answer)
    noted = list(team_server.other_version(type(store)(store.client, "http://u:secret@host", None)))
    if found is None:
        assert noted == []
    else:
        assert noted[0].text == f"http://***@host runs MLflow {found[0]}, and here is {mlflow.__version__}"
        assert (noted[0].severity, noted[0].remedy.startswith(found[1]), bool(noted[0].remedy)) == (
            *("note", True, bool(found[1])),
        )
