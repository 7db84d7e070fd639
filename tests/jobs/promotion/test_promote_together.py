"""Promotions that are killed at any write, and promotions at the same time; each a process of its own."""

import contextlib
import json

import forked
import pytest
from mlflow import MlflowClient
from servers import mlflow_server, postgresql
from support import TINY_TRAINING, move_store

from cifar_mlflow.tracking.registry import aliases, lease

HIGHEST = 60  # more writes than any of these commands make


def store_of(directory):
    return MlflowClient(f"sqlite:///{directory}/mlflow.db")


def alias(client, name="champion"):
    found = client.get_registered_model("tiny").aliases.get(name)
    return found and str(found)


def moves(client):
    """Action and version of every move of an alias, each of which must be done."""
    tags = client.get_registered_model("tiny").tags
    record = [json.loads(value) for key, value in sorted(tags.items()) if key.startswith(aliases.PREFIX)]
    assert {move["state"] for move in record} <= {"done"}
    return [(move["action"], move["version"]) for move in record]


@pytest.fixture(scope="module")
def champions_once(tmp_path_factory, trained_candidates):
    directory = tmp_path_factory.mktemp("champions")
    move_store(trained_candidates[0], directory)
    for run in trained_candidates[1].good[:2]:
        assert forked.run(directory, "promote", run).code == 0
    return directory


@pytest.fixture
def with_champions(champions_once, tmp_path):
    """A store in which versions 1 and 2 were promoted; returns a function that makes a copy of it."""

    def copy(number):
        directory = tmp_path / f"copy{number}"
        directory.mkdir()
        move_store(champions_once, directory)
        return directory

    return copy


@pytest.fixture(params=[pytest.param(1, marks=pytest.mark.long), 7], ids=["every write", "every seventh write"])
def step(request):
    """From one write before which the command is killed to the next."""
    return request.param


def killed_everywhere(copy, step, *words):
    """Copies of the store in which the command was killed before its first write, and so on in steps."""
    for number in range(1, HIGHEST, step):
        directory = copy(number)
        outcome = forked.run(directory, *words, kill_before_write=number)
        if outcome.code == 0:
            assert number > 5, "it made hardly any write"
            return
        assert outcome.code == -9, outcome.output
        yield directory
    raise AssertionError("it never ended")


def test_promote_killed_before_any_write_is_repaired_by_the_next(with_champions, candidates, step):
    for directory in killed_everywhere(with_champions, step, "promote", candidates.good[2]):
        assert alias(store_of(directory)) in ("2", "3")
        again = forked.run(directory, "promote", candidates.good[2])
        assert again.code == 0, again.output
        client = store_of(directory)
        assert (alias(client), alias(client, "previous")) == ("3", "2")
        assert len(client.search_model_versions("name='tiny'")) == 3
        assert moves(client) == [("promote", "1"), ("promote", "2"), ("promote", "3")]
        assert not [tag for tag in client.get_registered_model("tiny").tags if tag.startswith(lease.PREFIX)]


def test_rollback_after_a_promotion_that_was_killed(with_champions, candidates, step):
    for directory in killed_everywhere(with_champions, step, "promote", candidates.good[2]):
        before = alias(store_of(directory))
        assert forked.run(directory, "rollback", "tiny").code == 0
        client = store_of(directory)
        assert alias(client) == {"2": "1", "3": "2"}[before]
        assert alias(client, "previous") == {"2": None, "3": "1"}[before]


def test_rollback_killed_before_any_write(with_champions, step):
    for directory in killed_everywhere(with_champions, step, "rollback", "tiny"):
        before = alias(store_of(directory))
        assert before in ("1", "2")
        outcome = forked.run(directory, "rollback", "tiny")
        assert outcome.code == (0 if before == "2" else 7), outcome.output
        client = store_of(directory)
        assert (alias(client), alias(client, "previous")) == ("1", None)
        assert moves(client) == [("promote", "1"), ("promote", "2"), ("rollback", "1")]


def all_at_once(directory, good, broken, tracking_uri=None):
    """Promotes good models and a broken one at the same time, and checks what must hold whoever comes first."""
    models = [*good, (broken,)]
    started = [
        forked.start(directory, "promote", *words, "--format", "json", tracking_uri=tracking_uri) for words in models
    ]
    outcomes = [each.wait(300) for each in started]
    for outcome in outcomes:
        assert outcome.code in (0, 7), outcome.output
        assert "Traceback" not in outcome.output
    verdicts = [json.loads(outcome.stdout) for outcome in outcomes]
    client = MlflowClient(tracking_uri) if tracking_uri else store_of(directory)
    assert sorted(verdict["version"] for verdict in verdicts) == [str(number) for number in range(1, len(models) + 1)]
    # Each was judged against the champion of its moment: one after the other, each in the place of the one before.
    promoted = {verdict["version"]: verdict["champion"] for verdict in verdicts if verdict["status"] == "promoted"}
    in_order = [version for _, version in moves(client)]
    assert sorted(in_order) == sorted(promoted)
    assert [promoted[version] for version in in_order] == [None, *in_order[:-1]]
    assert (alias(client), alias(client, "previous")) == (in_order[-1], in_order[-2])
    # The broken one can have been champion only if it came first, when there was none to compare with.
    assert verdicts[-1]["status"] == ("promoted" if in_order[0] == verdicts[-1]["version"] else "refused")
    assert {verdict["status"] for verdict in verdicts[:-1]} == {"promoted"}
    assert {version.tags["verdict"] for version in client.search_model_versions("name='tiny'")} <= {
        "promoted",
        "refused",
    }


def both_weights(runs):
    return [(run, "--weights", weights) for run in runs for weights in ("last", "best")]


@pytest.mark.parametrize("good", [3, pytest.param(7, marks=pytest.mark.long)])
def test_promoted_at_once_on_sqlite(work, candidates, good):
    all_at_once(work, both_weights(candidates.good)[:good], candidates.broken)


@pytest.mark.parametrize(
    ("database", "good"),
    [
        ("postgresql", 2),
        pytest.param("sqlite", 2, marks=pytest.mark.long),
        *(pytest.param(database, 7, marks=pytest.mark.long) for database in ("sqlite", "postgresql")),
    ],
)
def test_promoted_at_once_on_a_server(work, tmp_path, tiny, database, good):
    with contextlib.ExitStack() as stack:
        store = stack.enter_context(postgresql()).uri if database == "postgresql" else None
        server = stack.enter_context(mlflow_server(tmp_path, store))

        def trained(*words):
            outcome = forked.run(
                work, "train", "--dataset", tiny, *TINY_TRAINING, "--epochs", 6, *words, tracking_uri=server
            )
            assert outcome.code == 0, outcome.output
            return outcome.stdout.split()[1]

        models = both_weights([trained("--seed", seed) for seed in range(-(-good // 2))])[:good]
        all_at_once(work, models, trained("--epochs", 1, "--learning-rate", 1e-7), tracking_uri=server)
        before = alias(MlflowClient(server), "previous")
        assert forked.run(work, "rollback", "tiny", tracking_uri=server).code == 0
        assert alias(MlflowClient(server)) == before
