"""Who has a part of a sweep: processes that are gone or silent lose theirs, and nobody else does."""

from __future__ import annotations

import json
import time
from types import SimpleNamespace

import pytest

from cifar_mlflow.errors import TrackingError
from cifar_mlflow.tracking import processes
from cifar_mlflow.tracking.reading import claims
from cifar_mlflow.tracking.registry import lease
from cifar_mlflow.tracking.store import Store

ELSEWHERE = {"host": "n2", "boot_id": "of another machine", "machine_id": "another"}
GONE = {"process_id": "1", "process_ticks": "1"}


class Client:
    """As much of MLflow's client as leases and claims use: the tags of an experiment and of a run."""

    def __init__(self) -> None:
        self.tags: dict[str, str] = {}
        self.experiment_tags: dict[str, str] = {}
        self.away = False

    def get_run(self, run_id):
        if self.away:
            raise TrackingError("the server went away")
        return SimpleNamespace(data=SimpleNamespace(tags=dict(self.tags)))

    def set_tag(self, run_id, key, value):
        self.tags[key] = value

    def delete_tag(self, run_id, key):
        del self.tags[key]

    def get_experiment(self, experiment_id):
        return SimpleNamespace(tags=dict(self.experiment_tags))

    def set_experiment_tag(self, experiment_id, key, value):
        self.experiment_tags[key] = value

    def delete_experiment_tag(self, experiment_id, key):
        del self.experiment_tags[key]


@pytest.fixture
def client(monkeypatch):
    monkeypatch.setattr(lease, "POLL", 0.001)
    monkeypatch.setattr(claims, "POLL", 0.001)
    monkeypatch.setattr(claims, "SILENCE", 0.02)
    return Client()


@pytest.fixture
def claim(client):
    """Claims parts of four for this process."""

    def take(*numbers, on_wait=lambda text: None):
        mine = claims.Claims(Store(client, "sqlite:///nowhere.db", None), "1", "0" * 32, numbers, 4)
        mine.take(on_wait)
        return mine

    return take


@pytest.fixture
def other(client):
    """Leaves another process's claim of part 2, last renewed so many seconds ago."""

    def leave(age=0.0, ended=False, **tags):
        told = {"key": "k", "ended": ended, "renewed": time.time() - age, **processes.process_tags(), **tags}
        client.tags["part.2"] = json.dumps(told)

    return leave


def test_a_part_is_claimed_and_given_free(client, claim):
    mine = claim(1, 3)
    assert list(claims.running(client.tags)) == [1, 3]
    assert mine.release() == {}
    assert claims.running(client.tags) == {}
    assert client.experiment_tags == {}


def test_whoever_gives_free_hears_of_the_others(client, claim, other):
    other(**ELSEWHERE)
    assert [each["host"] for each in claim(1).release().values()] == ["n2"]


@pytest.mark.parametrize("of", [GONE, {**ELSEWHERE, "ended": True}, {**ELSEWHERE, "age": claims.LONG_AGO + 1}])
def test_a_claim_that_is_over_is_taken_up_at_once(client, claim, other, of):
    other(**of)
    claim(2, on_wait=lambda text: pytest.fail(text))
    assert claims.running(client.tags)[2]["process_id"] == processes.process_tags()["process_id"]


def test_a_part_that_a_living_process_here_runs_is_refused_by_name(claim, other):
    other()
    with pytest.raises(TrackingError, match=r"part 2/4 \(process \d+ on .*\) of the sweep is being run; wait for it"):
        claim(2)


def test_a_claim_of_another_machine_is_taken_up_when_it_was_silent_for_long(client, claim, other):
    other(age=600, **ELSEWHERE)  # its clock may be behind, so that is no reason
    told = []
    claim(2, on_wait=told.append)
    assert told == [f"part 2/4 (process {processes.process_tags()['process_id']} on n2) is taken up if nothing is "
                    "heard of it for 0 seconds"]  # fmt: skip
    assert "host" in claims.running(client.tags)[2]
    assert claims.running(client.tags)[2]["host"] != "n2"


def test_a_claim_that_is_renewed_meanwhile_is_refused(client, claim, other):
    other(**ELSEWHERE)
    with pytest.raises(TrackingError, match="is being run"):
        claim(2, on_wait=lambda text: other(age=-1, **ELSEWHERE))
    assert claims.running(client.tags)[2]["host"] == "n2"


def test_a_claim_is_renewed_now_and_then(client, claim, monkeypatch):
    mine = claim(1)
    before = client.tags["part.1"]
    mine.renew()
    assert client.tags["part.1"] == before
    monkeypatch.setattr(claims, "BEAT", 0.0)
    mine.renew()
    assert client.tags["part.1"] != before


def test_who_lost_its_part_while_it_was_silent_stops_and_leaves_it_alone(client, claim, other, monkeypatch):
    monkeypatch.setattr(claims, "BEAT", 0.0)
    mine = claim(1, 2)
    other(**ELSEWHERE)
    with pytest.raises(TrackingError, match=r"part 2/4 was taken up by process \d+ on n2"):
        mine.renew()
    assert list(mine.release()) == [2]
    assert claims.running(client.tags)[2]["host"] == "n2"


def test_a_store_that_is_away_is_no_reason_to_stop(client, claim, monkeypatch):
    monkeypatch.setattr(claims, "BEAT", 0.0)
    mine = claim(1)
    client.away = True
    mine.renew()


def test_parts_are_forgotten(client, claim):
    claim(1)
    client.tags |= {claims.COUNT_TAG: "4", "sweep": "s"}
    claims.forget(Store(client, "sqlite:///nowhere.db", None), "0" * 32, dict(client.tags))
    assert client.tags == {"sweep": "s"}
