"""What is warned of and what is not, and which files are read at all."""

import pytest

from cifar_mlflow.config.faults import describe
from cifar_mlflow.config.rules import resolve, without_effect
from cifar_mlflow.config.yaml_files import MOST_VALUES, read_yaml
from cifar_mlflow.errors import ConfigurationError

# What has an effect, for each rule that warns of what has none.
EFFECTIVE = [
    {"scheduler": "step", "step_size": 3, "epochs": 4},
    {"scheduler": "multistep", "milestones": "2,3", "epochs": 4},
    {"scheduler": "exponential", "epochs": 2},
    {"scheduler": "cosine", "epochs": 1},
    {"scheduler": "exponential", "gamma": 0.99},
    {"split_seed": 1},
    {"validation_size": 0},
    {"validation_size": 0, "split_seed": 1, "folds": 2},  # it draws the folds
    {"validation_size": 0, "split_seed": 1, "dataset": "/photos/"},  # and the test images of a folder
    {"dataset": "digits", "data_dir": "auto"},
]


@pytest.mark.parametrize("values", EFFECTIVE)
def test_what_has_an_effect_is_not_warned_of(values):
    assert without_effect(resolve({"epochs": 30, **values})) == []


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"scheduler": "step", "step_size": 4, "epochs": 4}, "the rate first falls after 4 epochs"),
        ({"scheduler": "multistep", "milestones": "3,4,5", "epochs": 4}, "--milestones 4,5 has no effect"),
        ({"scheduler": "exponential", "epochs": 1}, "the rate first falls after epoch 1, and the run has 1"),
        ({"scheduler": "exponential", "gamma": 1}, "--gamma 1 has no effect: it leaves the rate as it is"),
        ({"scheduler": "exponential", "gamma": 1.01}, "--gamma 1.01 makes the rate rise"),
        ({"validation_size": 0, "split_seed": 1}, "--split-seed has no effect with --validation-size 0"),
        ({"scheduler": "cosine", "gamma": 0.5}, "--gamma 0.5 has no effect with --scheduler cosine"),
    ],
)
def test_what_has_none_is_told_once(values, told):
    (found,) = without_effect(resolve(values))
    assert told in found


def test_all_faults_of_a_configuration_come_together_and_each_once():
    with pytest.raises(ConfigurationError) as raised:
        resolve({"epochs": 0, "batch_size": 1, "scheduler": "multistep", "milestones": "9,3", "colour": 1}, "here")
    assert sorted(fault.split(":")[0] for fault in raised.value.faults) == [
        "--batch-size",
        "--colour",
        "--epochs",
        "--milestones",
    ]
    assert "here" in str(raised.value)


def test_a_contradiction_of_what_is_refused_anyway_is_not_told():
    with pytest.raises(ConfigurationError) as raised:
        resolve({"batch_norm": "perhaps", "batch_size": 1, "network": "fast"})
    assert [fault.split(":")[0] for fault in raised.value.faults] == ["--batch-norm"]


def test_the_names_of_runs_have_sixteen_digits():
    config = resolve({})
    assert len(config.fingerprint) == len(config.run_fingerprint("data")) == 16
    assert config.run_fingerprint("data") != config.run_fingerprint("other")
    assert config.run_fingerprint("data") != resolve({"seed": 1}).run_fingerprint("data")


# ------------------------------------------------------------------------------------------------------ YAML files


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"\xff\xfe", "it is not a text file in UTF-8"),
        (b"a: [", "it is not valid YAML"),
        (b"- a", "it must hold a mapping"),
        (b"a: 1\na: 2", "the key 'a' stands twice"),
        (b"a: {b: 1, b: 1}", "the key 'b' stands twice"),
        (b"a: &x [*x]", "its anchors unfold"),
    ],
)
def test_a_file_that_is_no_configuration_is_refused_with_the_reason(work, content, told):
    (work / "a.yaml").write_bytes(content)
    with pytest.raises(ConfigurationError) as raised:
        read_yaml("a.yaml")
    assert "file a.yaml" in str(raised.value)
    assert told in str(raised.value)


def test_an_empty_file_is_no_values_and_keys_are_texts(work):
    (work / "a.yaml").write_text("# nothing")
    assert read_yaml("a.yaml") == {}
    (work / "a.yaml").write_text("1: a\n")
    assert read_yaml("a.yaml") == {"1": "a"}


@pytest.mark.parametrize("more", [0, 1])
def test_a_file_may_unfold_to_so_many_values_and_no_more(work, more):
    lists = MOST_VALUES // 1000
    inner, outer = 1000 - 2, lists - 1  # the mapping, its two values, the inner lists themselves
    lines = f"a: &a [{', '.join(['0'] * inner)}]\nb: [{', '.join(['*a'] * outer)}]\n"
    count = 1 + 2 + inner + outer * (1 + inner)
    lines += f"c: [{', '.join(['0'] * (MOST_VALUES - count - 1 + more))}]\n"
    (work / "a.yaml").write_text(lines)
    if more:
        with pytest.raises(ConfigurationError, match="its anchors unfold"):
            read_yaml("a.yaml")
    else:
        assert set(read_yaml("a.yaml")) == {"a", "b", "c"}


def test_a_fault_is_named_by_its_path_and_told_once():
    from pydantic import BaseModel, ConfigDict, ValidationError

    class Inner(BaseModel):
        model_config = ConfigDict(extra="forbid")
        number: int

    class Outer(BaseModel):
        inner: Inner

    given = {"inner": {"number": "x", "more": 1}}
    with pytest.raises(ValidationError) as raised:
        Outer.model_validate(given)
    assert describe(raised.value, given, ".".join) == {
        (
            "inner",
            "number",
        ): "inner.number: 'x' is refused: must be a valid integer, unable to parse string as an integer",
        ("inner", "more"): "inner.more: there is no such key",
    }
    with pytest.raises(ValidationError) as raised:
        Outer.model_validate({})
    assert describe(raised.value, {}, ".".join) == {("inner",): "inner: it is missing"}
