"""The configuration: what is accepted, what is refused, what is warned of, and what it is called."""

import re

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from cifar_mlflow.config.rules import resolve, without_effect
from cifar_mlflow.config.training import NOT_IN_FINGERPRINT, TrainingConfig, parse_logged
from cifar_mlflow.config.yaml_files import read_yaml
from cifar_mlflow.errors import ConfigurationError
from cifar_mlflow.text import as_option

# A value for each field that is valid, and not the default.
OTHER = {
    "network": "package.module:build",
    "pretrained": "/weights.pt",
    "freeze": "backbone",
    "backbone_rate": 0.1,
    "activation": "gelu",
    "widths": (16, 32, 64),
    "dropout": 0.1,
    "batch_norm": False,
    "weight_init": "kaiming",
    "augmentation": "flip",
    "alternate_flip": True,
    "shift": 2,
    "padding": "reflect",
    "mix": "mixup",
    "normalize": True,
    "loss": None,  # and one loss
    "label_smoothing": 0.1,
    "optimizer": "sgd",
    "learning_rate": 0.1,
    "bias_rate": 2.0,
    "momentum": 0.9,
    "weight_decay": 0.01,
    "scheduler": "cosine",
    "warmup": 0.1,
    "step_size": 5,
    "gamma": 0.5,
    "milestones": (10, 20),
    "batch_size": 64,
    "accumulate": 2,
    "clip_grad": 1.0,
    "epochs": 40,
    "patience": None,  # which contradicts others here
    "max_minutes": 5.0,
    "averaging": "ema",
    "averaging_decay": 0.9,
    "epoch_evaluation": False,
    "seed": 1,
    "dataset": "digits",
    "data_dir": "/data",
    "image_size": 48,
    "test_size": 0.2,
    "skip_unreadable": True,
    "validation_size": 100,
    "split_seed": 1,
    "folds": 5,
    "class_weights": "balanced",
    "device": "cpu",
    "precision": "float32",
    "threads": 2,
    "accelerate": "none",
}
CHANGES = {name: value for name, value in OTHER.items() if value is not None}


def faults(**values):
    with pytest.raises(ConfigurationError) as raised:
        resolve(values)
    return raised.value.faults


class TestWhatIsAccepted:
    def test_the_defaults_are_the_reports_final_method(self):
        config = resolve({})
        method = (config.activation, config.optimizer, config.learning_rate, config.batch_size, config.epochs)
        assert method == ("prelu", "adam", 0.002, 32, 30)
        assert (config.scheduler, config.step_size, config.gamma, config.dropout) == ("step", 20, 0.2, 0)

    def test_every_field_has_a_description_and_is_tried_here(self):
        assert set(OTHER) == set(TrainingConfig.model_fields)
        assert all(field.description for field in TrainingConfig.model_fields.values())

    @pytest.mark.parametrize("name", CHANGES)
    def test_a_value_typed_as_an_option_is_the_value(self, name):
        assert getattr(resolve({name: as_option(CHANGES[name])}), name) == CHANGES[name]

    @pytest.mark.parametrize("typed", ["15,25", "[15, 25]", " 15 , 25 ", (15, 25), [15, 25]])
    def test_milestones_are_typed_in_several_ways(self, typed):
        assert resolve({"milestones": typed}).milestones == (15, 25)

    def test_one_milestone_needs_no_comma(self):
        assert resolve({"milestones": "7"}).milestones == resolve({"milestones": 7}).milestones == (7,)

    def test_the_yaml_of_a_configuration_gives_it_again(self):
        config = resolve(CHANGES)
        assert resolve(yaml.safe_load(config.as_yaml())) == config

    def test_logged_parameters_are_read_back_as_typed_values(self):
        parsed = parse_logged({"learning_rate": "0.0020", "milestones": "5,6", "epochs": "many", "other": "1"})
        assert parsed["learning_rate"] == 0.002
        assert parsed["milestones"] == "5,6"
        assert parsed["epochs"] == "many"
        assert "other" not in parsed


class TestWhatIsRefused:
    def test_all_faults_are_told_together(self):
        assert faults(gama=1, epochs=0, activation="tanh", batch_size=1) == [
            "--activation: 'tanh' is not one of relu, leaky_relu, prelu, rrelu, elu, gelu, silu",
            "--epochs: 0 is refused: must be greater than or equal to 1",
            "--gama: no such option (did you mean --gamma?)",
            "--batch-size: 1 cannot be combined with --batch-norm true, which needs two images or more a step",
        ]

    def test_the_message_counts_the_faults(self):
        with pytest.raises(ConfigurationError, match=re.escape("2 faults in the options:\n  - --gamma: ")):
            resolve({"epochs": 0, "gamma": 0}, "options")
        with pytest.raises(ConfigurationError, match="1 fault in the options:"):
            resolve({"gamma": 0}, "options")

    @pytest.mark.parametrize(
        ("values", "fault"),
        [
            ({"scheduler": "multistep", "milestones": ()}, "--milestones: --scheduler multistep needs at least one"),
            ({"scheduler": "multistep", "milestones": (9, 9)}, "--milestones: 9,9 must rise, each larger than the one"),
            ({"scheduler": "multistep", "milestones": (9, 5)}, "--milestones: 9,5 must rise, each larger than the one"),
            ({"batch_size": 1}, "--batch-size: 1 cannot be combined with --batch-norm true"),
        ],
    )
    def test_options_that_contradict_each_other(self, values, fault):
        (found,) = faults(**values)
        assert found.startswith(fault)

    def test_no_contradiction_is_made_of_a_value_that_is_refused_anyway(self):
        assert len(faults(batch_size=1, batch_norm="perhaps")) == 1

    def test_a_batch_of_one_is_fine_without_batch_norm(self):
        assert resolve({"batch_size": 1, "batch_norm": False}).batch_size == 1

    @pytest.mark.parametrize("name", ["learning_rate", "epochs", "threads", "validation_size"])
    @pytest.mark.parametrize("value", [True, [], {}, None, "", "nan", float("inf"), -1, b"x", 1j])
    def test_junk_in_a_numeric_field(self, name, value):
        (fault,) = faults(**{name: value})
        assert fault.startswith(f"--{name.replace('_', '-')}: {value!r} is refused: must be ")

    def test_a_yaml_key_that_stands_twice(self, work):
        (work / "twice.yaml").write_text("epochs: 1\nseed: 1\nepochs: 2\n")
        with pytest.raises(ConfigurationError, match=r"file twice.yaml:\n.*the key 'epochs' stands twice.* line 3"):
            read_yaml("twice.yaml")

    def test_an_empty_file_is_no_change(self, work):
        (work / "empty.yaml").write_text("# nothing\n")
        assert read_yaml("empty.yaml") == {}


JUNK = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.binary(max_size=4) | st.dates(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=2),
    max_leaves=4,
)


@settings(max_examples=300, deadline=None)
@given(st.dictionaries(st.sampled_from(list(OTHER)) | st.text(max_size=6), JUNK, max_size=5))
def test_any_dictionary_gives_a_configuration_or_its_faults(values):
    try:
        config = resolve(values)
    except ConfigurationError:
        return
    assert len(config.fingerprint) == 16
    without_effect(config)


@settings(max_examples=200, deadline=None)
@given(st.text(alphabet=st.characters(codec="utf-8", exclude_characters="\r")) | st.binary())
def test_any_file_gives_a_mapping_or_its_faults(tmp_path_factory, content):
    path = tmp_path_factory.getbasetemp() / "any.yaml"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    try:
        values = read_yaml(path)
    except ConfigurationError:
        return
    assert isinstance(values, dict)


class TestWhatIsWarnedOf:
    def test_nothing_by_default(self):
        assert without_effect(resolve({})) == []

    @pytest.mark.parametrize(
        ("values", "warning"),
        [
            ({"momentum": 0.9}, "--momentum 0.9 has no effect with --optimizer adam (it acts with muon, rmsprop, sg"),
            ({"step_size": 5, "scheduler": "cosine"}, "--step-size 5 has no effect with --scheduler cosine"),
            ({"gamma": 0.5, "scheduler": "none"}, "--gamma 0.5 has no effect with --scheduler none (it acts with expo"),
            ({"milestones": (5,)}, "--milestones 5 has no effect with --scheduler step (it acts with multistep)"),
            ({"data_dir": "/x", "dataset": "digits"}, "--data-dir /x has no effect with --dataset digits"),
            ({"validation_size": 0, "split_seed": 1}, "--split-seed has no effect with --validation-size 0"),
            ({"step_size": 25, "epochs": 20}, "--scheduler step has no effect: the rate first falls after 25 epochs"),
            ({"scheduler": "step", "epochs": 20}, "--scheduler step has no effect: the rate first falls after 20 epoc"),
            ({"step_size": 20, "epochs": 5}, "--scheduler step has no effect: the rate first falls after 20 epochs"),
            ({"scheduler": "multistep", "epochs": 20}, "--milestones 25 has no effect: the run ends after 20 epochs"),
            ({"scheduler": "exponential", "epochs": 1}, "--scheduler exponential has no effect: the rate first falls"),
            ({"widths": "8,8,8"}, "--widths 8,8,8 has no effect with --network report_cnn"),
            ({"alternate_flip": True}, "--alternate-flip true has no effect with --augmentation none"),
            ({"shift": 2, "augmentation": "flip"}, "--shift 2 has no effect with --augmentation flip (it acts with"),
            ({"padding": "reflect"}, "--padding reflect has no effect with --augmentation none"),
            ({"warmup": 0}, "--warmup 0.0 has no effect with --scheduler step"),
            ({"averaging_decay": 0.9}, "--averaging-decay 0.9 has no effect with --averaging none"),
            ({"gamma": 1}, "--gamma 1 has no effect: it leaves the rate as it is"),
            ({"gamma": 2}, "--gamma 2.0 makes the rate rise: a decaying schedule has a gamma below 1"),
        ],
    )
    def test_an_option_that_changes_nothing(self, values, warning):
        (found,) = without_effect(resolve(values))
        assert found.startswith(warning)

    @pytest.mark.parametrize(
        "values",
        [
            {"epochs": 20},
            {"momentum": 0.9, "optimizer": "sgd"},
            {"momentum": 0.9, "optimizer": "rmsprop"},
            {"momentum": 0.9, "optimizer": "muon"},
            {"widths": "8,8,8", "network": "fast"},
            {"augmentation": "flip", "alternate_flip": True},
            {"augmentation": "flip_crop", "alternate_flip": True, "shift": 2, "padding": "reflect"},
            {"scheduler": "triangular", "warmup": 0},
            {"averaging": "ema", "averaging_decay": 0.9},
            {"step_size": 5},
            {"gamma": 0.5, "scheduler": "exponential"},
            {"milestones": (5,), "scheduler": "multistep"},
            {"data_dir": "/x"},
            {"split_seed": 1},
            {"epochs": 21},
            {"scheduler": "none", "epochs": 1},
        ],
    )
    def test_not_an_option_that_acts(self, values):
        assert without_effect(resolve(values)) == []


class TestFingerprint:
    def test_is_taken_from_parsed_values(self):
        assert resolve({"learning_rate": "0.0020"}).fingerprint == resolve({"learning_rate": 0.002}).fingerprint
        assert resolve({"learning_rate": "2e-3"}).fingerprint == resolve({}).fingerprint
        assert resolve({"milestones": "[15, 25]"}).fingerprint == resolve({}).fingerprint

    @pytest.mark.parametrize("name", CHANGES)
    def test_names_the_configuration_not_the_repeat(self, name):
        same = resolve({name: CHANGES[name]}).fingerprint == resolve({}).fingerprint
        assert same == (name in NOT_IN_FINGERPRINT)

    def test_leaves_out_what_this_test_says(self):
        assert {"seed", "threads", "accelerate", "device", "data_dir", "skip_unreadable"} == NOT_IN_FINGERPRINT

    def test_is_that_of_the_user_s_file_wherever_it_is(self):
        paths = ("a.npz", "/elsewhere/b.npz")
        assert len({resolve({"dataset": path}).fingerprint for path in paths}) == 1
        assert resolve({"dataset": "a.npz"}).fingerprint != resolve({}).fingerprint

    def test_stays_what_earlier_versions_have_recorded(self):
        assert resolve({"optimizer": "sgd"}).fingerprint == "c3a695226d2c6d48"
        assert resolve({"optimizer": "sgd"}).run_fingerprint("a") == "cff76a083b31fe96"

    def test_has_one_zero(self):
        for name in ("dropout", "weight_decay", "momentum"):
            assert resolve({name: "-0.0"}).as_options()[name] == "0.0"

    def test_of_a_run_has_the_source_of_an_own_network(self):
        assert len({resolve({}).run_fingerprint("a", network) for network in ("", "n", "m")}) == 3

    def test_of_a_run_has_the_seed_and_the_data(self):
        first = resolve({}).run_fingerprint("a")
        assert first == resolve({"threads": 2}).run_fingerprint("a")
        assert len({first, resolve({}).run_fingerprint("b"), resolve({"seed": 1}).run_fingerprint("a")}) == 3
