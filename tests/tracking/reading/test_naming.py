"""Runs and sweeps by the words that people give for them."""

from __future__ import annotations

import uuid

import pytest

from cifar_mlflow.errors import ModelError
from cifar_mlflow.tracking import store as tracking_store
from cifar_mlflow.tracking.reading import naming, resumable, selection, sweeps

FIRST, SECOND, THIRD = "decade0" + "0" * 25, "decade1" + "0" * 25, "4" * 32


@pytest.fixture
def store(cifar):
    return tracking_store.connect()


@pytest.fixture
def make(store, monkeypatch):
    """Makes a run of which everything is told, without training anything."""

    def made(run_id, name, experiment="0", status="FINISHED", **tags):
        with monkeypatch.context() as patch:
            patch.setattr(uuid, "uuid4", lambda: uuid.UUID(run_id))
            run = store.client.create_run(experiment, run_name=name, tags={"kind": "single", **tags})
        store.client.set_terminated(run.info.run_id, status)
        return run.info.run_id

    return made


@pytest.fixture
def three(make):
    return [make(FIRST, "first"), make(SECOND, "it's mine"), make(THIRD, "same")]


@pytest.mark.parametrize(
    ("word", "run_id"),
    [
        (FIRST, FIRST),
        ("decade0", FIRST),
        ("444444", THIRD),
        ("first", FIRST),
        ("it's mine", SECOND),
        ("9" * 32, "9" * 32),  # a whole id is not looked for
        ("44444", None),  # five digits are too few
        ("First", None),
        ('"' + "'", None),
        ("", None),
    ],
)
def test_a_run_is_named_by_its_id_a_beginning_of_it_or_its_name(store, three, word, run_id):
    assert naming.find(store, word) == run_id


def test_several_are_told_with_what_tells_them_apart(store, three, make):
    with pytest.raises(ModelError) as caught:
        naming.find(store, "decade")
    first, *others = str(caught.value).splitlines()
    assert first == "'decade' names 2 runs; give the id of one, or a beginning of it:"
    assert [line.split(": ")[0] for line in others] == [f"  - {SECOND}", f"  - {FIRST}"]  # the newest first
    assert all(", in Default, FINISHED, begun 2" in line for line in others)
    make("5" * 32, "first", status="FAILED")
    with pytest.raises(ModelError, match=r"(?s)'first' names 2 runs.*5{32}: first, in Default, FAILED, begun"):
        naming.find(store, "first")


def test_of_many_the_newest_are_told(store, make):
    for number in range(11):
        make(f"{number:032x}", "twin")
    with pytest.raises(ModelError, match="'twin' names 11 runs") as caught:
        naming.find(store, "twin")
    told = str(caught.value).splitlines()
    assert (len(told), told[-1]) == (10, "  and 3 older ones")


def test_a_name_may_look_like_a_beginning(store, three, make):
    make("6" * 32, "444444")
    with pytest.raises(ModelError, match="'444444' names 2 runs"):
        naming.find(store, "444444")


def test_what_mlflow_run_made_for_another_command_is_no_rival(store, three, make):
    job = make("7" * 32, "same", kind="job")
    assert naming.find(store, "same") == THIRD
    assert naming.find(store, "777777") == job


def test_a_similar_name_is_hinted_at(store, three):
    assert naming.hint(store, "frist") == " (did you mean first?)"
    assert naming.hint(store, "cifra10", ["cifar10"]) == " (did you mean cifar10?)"
    assert naming.hint(store, "nothing like it") == ""


def test_compare_takes_them_all(store, three, make):
    experiment = store.client.create_experiment("other")
    make("8" * 32, "elsewhere", experiment)
    for words, ids in {("first", "decade1"): [FIRST, SECOND], ("other", "same"): [THIRD, "8" * 32]}.items():
        assert {run.info.run_id for run in selection.select(store, words)} == set(ids)
    with pytest.raises(
        ModelError, match=r"'othr' names no run, no experiment and no sweep .* \(did you mean other\?\)"
    ):
        selection.select(store, ["othr"])


def test_a_sweep_by_name_and_by_the_beginning_of_an_id(store, make):
    make("c" * 32, "grid", kind="sweep", sweep="grid", sweep_id="c" * 32, winner_run=FIRST)
    make("d" * 32, "grid-trial", kind="trial", sweep="grid", sweep_id="c" * 32)
    for word in ("grid", "cccccc", "c" * 32):
        assert sweeps.winner(store, word) == FIRST
        assert [run.info.run_id for run in selection.select(store, [word])] == ["d" * 32]
    with pytest.raises(ModelError, match=r"there is no sweep 'gird' in .* \(did you mean grid\?\)"):
        sweeps.winner(store, "gird")


def test_what_began_offline_is_resumed_by_either_id(store, three, make):
    make("e" * 32, "offline", **{resumable.RUN_TAG: "0123456789" + "0" * 22})
    assert resumable.named(store, "012345") == "e" * 32
    assert resumable.named(store, "eeeeee") == "e" * 32
    with pytest.raises(ModelError, match=r"--resume: 'ofline' names no run \(did you mean offline\?\); give a run"):
        resumable.named(store, "ofline")
