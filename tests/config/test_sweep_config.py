"""Specs of sweeps: every fault in one message, before anything runs."""

from __future__ import annotations

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cifar_mlflow.config.sweep import load_spec, parse_spec
from cifar_mlflow.config.sweep_changes import changes
from cifar_mlflow.errors import ConfigurationError

GOOD = {"name": "good", "base": {"dataset": "digits", "epochs": 4}, "space": {"activation": ["relu", "prelu"]}}


@pytest.fixture
def parse(work):
    return lambda **values: parse_spec({**GOOD, **values}, work)


@pytest.fixture
def faults(parse):
    def of(**values) -> list[str]:
        with pytest.raises(ConfigurationError) as caught:
            parse(**values)
        return caught.value.faults

    return of


def test_all_faults_are_told_at_once(faults):
    found = faults(
        name="two words",
        base={"dataset": "digits", "epochs": 1, "colour": "red", "gamma": -0.1},
        space={"actvation": ["relu"], "dropout": [], "learning_rate": {"low": 0.1, "high": 0.01}, "gamma": [-0.2, 0.1]},
        sampler="tpe",
        pruner="successive_halving",
        objective="test_accuracy",
        workers=0,
        budget={"hours": 3},
        extra=1,
    )
    text = "\n".join(found)
    for expected in (
        "name: 'two words'",
        "base: --colour: no such option",
        "base: --gamma: -0.1 is refused",
        "actvation: no such parameter (did you mean activation?)",
        "dropout: the list is empty",
        "learning_rate: the range is reversed",
        "gamma: -0.2 is refused: must be greater than 0",
        "trials: the tpe sampler needs a number of trials",
        "pruner: successive_halving first decides after epoch 1 (min_epochs), and a run has 1",
        "objective: test_accuracy is measured on the test set",
        "workers: 0 is refused",
        "budget: hours: a sweep has no such key",
        "extra: a sweep has no such key",
    ):
        assert expected in text
    assert len(found) == len(set(found)) == 13


def test_a_misspelled_pruner_is_the_only_fault(faults):
    (found,) = faults(pruner="sucessive_halving", min_epochs=2)
    assert found == (
        "pruner: 'sucessive_halving' is not one of none, successive_halving (did you mean successive_halving?)"
    )


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"space": {}}, "space: must map parameters"),
        ({"epochs": 3}, "epochs: it is an option of train, and belongs under base"),
        ({"space": {"activation": "relu"}}, "must be a list such as"),
        ({"space": {"activation": {"low": 1, "high": 2}}}, "it is no number"),
        ({"space": {"activation": ["relu", "relu"]}}, "relu stands more than once"),
        ({"space": {"milestones": [[1, 2], "1,2"]}}, "1,2 stands more than once"),
        ({"space": {"learning_rate": [0.1, "0.10"]}}, "0.1 stands more than once"),
        ({"space": {"seed": [1, 2]}}, "repeats runs each configuration with several seeds"),
        ({"space": {"split_seed": [1, 2]}}, "hold out different images"),
        ({"space": {"validation_size": [10, 20]}}, "hold out different images"),
        ({"space": {"device": ["cpu"]}}, "it does not change what is trained"),
        ({"base": {"threads": 2}}, "base: threads: give the sweep's own"),
        ({"space": {"dropout": {"low": 0.0, "high": 0.5}}}, "a grid needs a list, or a step"),
        ({"space": {"dropout": {"low": 0.0, "high": 0.5, "step": -1}}}, "step -1 must be above 0"),
        (
            {"space": {"dropout": {"low": 0.0, "high": "half", "step": 0.1}}},
            "dropout: high: 'half' is refused: must be",
        ),
        ({"space": {"dropout": {"low": 0, "high": 0.5, "steps": 1}}}, "a range has no such key (it has low, high, log"),
        ({"space": {"dropout": {"values": [0.1], "log": True}}}, "dropout: log: a list has no such key (it has values"),
        ({"space": {"dropout": {"low": 0.1, "high": 0.2, "kind": "integer"}}}, "must be a list such as"),
        ({"space": {"epochs": {"low": 1, "high": 3, "step": 1.5}}}, "step 1.5 must be a whole number above 0"),
        ({"space": {"epochs": {"values": [1], "when": 5}}}, "epochs: when: 5 is refused: must be a valid dictionary"),
        ({"name": "a b"}, "name: 'a b' is refused: must be letters, digits, _ . and -, at most 100"),
        ({"workers": True}, "workers: True is refused: must be auto or a whole number, 1 or more"),
        ({"budget": {"minutes": 0}}, "budget: minutes: 0 is refused: must be greater than 0"),
        ({"budget": 5}, "budget: 5 is refused: must be a valid dictionary"),
        ({"space": {"epochs": {"low": 1.5, "high": 3}}}, "must be whole numbers"),
        ({"space": {"learning_rate": {"low": 0.0, "high": 1, "log": True}}}, "a low above 0"),
        ({"space": {"dropout": {"values": [0.1], "when": {"scheduler": "step"}}}}, "scheduler is not in the space"),
        (
            {"space": {"scheduler": ["none"], "gamma": {"values": [0.1], "when": {"scheduler": "step"}}}},
            "scheduler is never step",
        ),
        (
            {
                "space": {
                    "gamma": {"values": [0.1], "when": {"dropout": 0.1}},
                    "dropout": {"values": [0.1], "when": {"gamma": 0.1}},
                }
            },
            "their conditions wait for each other",
        ),
        ({"space": {"batch_size": [1, 8], "batch_norm": [True, False]}}, "with batch_size 1, batch_norm true"),
        ({"trials": 3}, "the grid sampler tries every combination"),
        ({"repeats": 0}, "repeats: 0 is refused"),
        ({"base": {"validation_size": 0}, "sampler": "tpe", "trials": 3}, "by which tpe must not choose"),
        (
            {"base": {"validation_size": 0, "epochs": 5}, "pruner": "successive_halving"},
            "by which successive_halving must not choose",
        ),
        (
            {"base": {"epochs": 3}, "pruner": "successive_halving", "min_epochs": 3},
            "pruner: successive_halving first decides after epoch 3 (min_epochs), and a run has 3",
        ),
        ({"min_epochs": 2}, "min_epochs: it has no effect without pruner: successive_halving"),
        ({"min_epochs": 0, "pruner": "successive_halving"}, "min_epochs: 0 is refused"),
        (
            {"objective": "accuracy"},
            "'accuracy' is not one of final_val_accuracy, best_val_accuracy, final_val_",
        ),
        ({"base": {"config": "nowhere.yaml"}}, "nowhere.yaml: it cannot be read"),
        (
            {"base": {"epoch_evaluation": False}, "pruner": "successive_halving"},
            "base: epoch_evaluation: false leaves out the scores after the epochs, but pruner: successive_halving",
        ),
        (
            {"base": {"epoch_evaluation": "false", "validation_size": 0}},
            "base: epoch_evaluation: false leaves out the scores after the epochs, but validation_size: 0 has no",
        ),
    ],
)
def test_each_fault_is_named(faults, values, expected):
    (fault,) = faults(**values)
    assert expected in fault


def test_a_grid_of_a_million_is_refused_with_its_size(faults):
    (fault,) = faults(space={"step_size": {"low": 1, "high": 1000}, "batch_size": {"low": 2, "high": 1001}})
    assert "these are 1,000,000 runs" in fault
    assert "at most 10,000" in fault


def test_the_repeats_count_towards_the_limit_of_runs(faults, parse):
    space = {"step_size": {"low": 1, "high": 5000}}
    assert parse(space=space, repeats=2).configurations == 5000
    (fault,) = faults(space=space, repeats=3)
    assert "these are 15,000 runs (5,000 configurations x 3 seeds)" in fault
    (fault,) = faults(space=GOOD["space"], sampler="random", trials=5001, repeats=2)
    assert "these are 10,002 runs" in fault


def test_only_without_validation_images_a_sweep_is_a_replication(parse):
    assert not parse(sampler="tpe", trials=3).is_replication
    assert parse(base={"dataset": "digits", "validation_size": "0"}).is_replication


def test_conditions_make_a_grid_smaller_than_the_product(parse):
    space = {"scheduler": ["none", "cosine", "step"], "gamma": {"values": [0.1, 0.2], "when": {"scheduler": "step"}}}
    spec = parse(space=space)
    assert spec.configurations == 4
    assert [values.get("gamma") for values in spec.grid()] == [None, None, 0.1, 0.2]


def test_a_batch_size_of_1_is_right_where_a_condition_rules_out_batch_norm(parse):
    space = {"batch_norm": [True, False], "batch_size": {"values": [1, 8], "when": {"batch_norm": False}}}
    assert parse(space=space).configurations == 3


def test_a_base_file_is_found_beside_the_spec_and_so_are_data_files(work):
    folder = work / "specs"
    folder.mkdir()
    (folder / "base.yaml").write_text("dataset: data/mine.npz\nepochs: 7\ndropout: 0.1\n")
    (folder / "sweep.yaml").write_text("name: s\nbase: {config: base.yaml, dropout: 0.2}\nspace: {gamma: [0.1, 0.2]}\n")
    config = load_spec(folder / "sweep.yaml").configuration({"gamma": 0.1}, 3)
    assert (config.epochs, config.dropout, config.gamma, config.seed) == (7, 0.2, 0.1, 3)
    assert config.dataset == str(folder / "data" / "mine.npz")


@pytest.mark.parametrize(
    ("name", "entry", "values"),
    [
        ("dropout", {"low": 0.1, "high": 0.3, "step": 0.1}, [0.1, 0.2, 0.3]),
        ("gamma", {"low": 0.1, "high": 0.7, "step": 0.3}, [0.1, 0.4, 0.7]),
        ("gamma", {"low": 0.1, "high": 0.35, "step": 0.1}, [0.1, 0.2, 0.3]),
        ("epochs", {"low": 2, "high": 4}, [2, 3, 4]),
        ("epochs", {"low": 2, "high": 7, "step": 3}, [2, 5]),
    ],
)
def test_a_range_in_steps_has_both_ends_where_the_steps_reach_them(parse, name, entry, values):
    spec = parse(space={name: entry})
    found = [combination[name] for combination in spec.grid()]
    assert found == values
    assert [type(value) for value in found] == [type(value) for value in values]
    assert spec.configurations == spec.space[name].count == len(values)


def test_repeats_are_seeds_from_the_base_seed_on(parse):
    assert parse(repeats=3, base={"seed": 5}).seeds == [5, 6, 7]


def test_a_spec_read_back_is_the_same_spec(parse, work):
    space = {
        "scheduler": ["none", "step"],
        "step_size": {"low": 1, "high": 9, "when": {"scheduler": "step"}},
        "gamma": {"values": [0.1, 0.2], "when": {"scheduler": ["step"]}},
        "milestones": [[5, 6], "7,8"],
        "learning_rate": {"low": 1e-4, "high": 0.1, "log": True},
    }
    spec = parse(space=space, sampler="random", trials=4, budget={"minutes": 5})
    read_back = parse_spec(yaml.safe_load(spec.as_yaml()), work)
    assert read_back == spec
    assert changes(spec.as_data(), read_back) == []
    assert spec.as_data()["space"]["step_size"] == {"low": 1, "high": 9, "when": {"scheduler": ["step"]}}
    assert [entry.kind for entry in spec.space.values()] == ["choice", "integer", "choice", "choice", "number"]


@pytest.mark.parametrize(
    "added",
    [
        {"repeats": 3},
        {"space": {"activation": ["relu", "prelu", "elu"]}},
        {"workers": 1},
        {"threads": 2},
        {"base": {**GOOD["base"], "device": "cpu"}},
    ],
)
def test_what_only_adds_is_no_change(parse, added):
    assert changes(parse(repeats=2).as_data(), parse(**{"repeats": 2, **added})) == []


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({"repeats": 1}, "repeats: was 2, is 1"),
        ({"space": {"activation": ["relu"]}}, "activation: prelu is gone"),
        ({"base": {"dataset": "digits", "epochs": 5}}, "base: epochs: was 4, is 5"),
        ({"base": {"dataset": "digits"}}, "base: epochs: was 4, is not given"),
        ({"space": {"activation": {"values": ["relu", "prelu"], "when": {}}, "gamma": [0.1]}}, "gamma: was not given"),
        ({"objective": "val_loss"}, "objective: was not given, is val_loss"),
    ],
)
def test_a_change_is_told(parse, changed, expected):
    (told,) = changes(parse(repeats=2).as_data(), parse(**{"repeats": 2, **changed}))
    assert expected in told


@pytest.mark.parametrize("when", [["step"], ["step", "cosine", "none"], ["step", "none"]])
def test_a_condition_that_changed_is_told_even_where_values_were_added_to_it(parse, when):
    def spec(wanted):
        gamma = {"values": [0.1, 0.2], "when": {"scheduler": wanted}}
        return parse(space={"scheduler": ["none", "step", "cosine"], "gamma": gamma})

    before = spec(["step", "cosine"])
    assert changes(before.as_data(), spec(["step", "cosine"])) == []
    (told,) = changes(before.as_data(), spec(when))
    assert told == f"space: gamma: when: scheduler: was ['step', 'cosine'], is {when}"


@settings(deadline=None, max_examples=60, suppress_health_check=list(HealthCheck))
@given(
    st.dictionaries(
        st.sampled_from(["activation", "dropout", "epochs", "nonsense", "milestones", "batch_norm"]),
        st.recursive(
            st.none() | st.booleans() | st.integers(-5, 50) | st.floats() | st.text(max_size=5),
            lambda inner: (
                st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(["low", "high", "step", "when"]), inner)
            ),
            max_leaves=6,
        ),
    )
)
def test_whatever_the_space_is_it_is_read_or_refused(tmp_path_factory, space):
    try:
        spec = parse_spec({**GOOD, "space": space}, tmp_path_factory.getbasetemp())
    except ConfigurationError:
        return
    assert spec.configurations == len(list(spec.grid()))
