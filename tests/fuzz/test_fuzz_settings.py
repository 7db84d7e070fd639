"""Configurations, sweep specs and YAML with anything in them."""

import yaml
from fuzzing import ANYTHING, SCALARS, fuzz, only_our_errors
from hypothesis import strategies as st

from cifar_mlflow.config.rules import resolve
from cifar_mlflow.config.sweep import load_spec, parse_spec
from cifar_mlflow.config.training import TrainingConfig
from cifar_mlflow.config.yaml_files import read_yaml

FIELDS = st.sampled_from([*TrainingConfig.model_fields, "colour", "", "config", "threads"])
VALUES = ANYTHING | st.sampled_from(
    ["auto", "cifar10", "x.npz", "sgd", "15,25", "1e9", "٣", "nan", "inf", "-0", "0x10"]
)
CONFIGURATIONS = st.dictionaries(FIELDS | st.text(max_size=6), VALUES, max_size=6)
ENTRIES = st.one_of(
    ANYTHING,
    st.lists(SCALARS, max_size=5),
    st.fixed_dictionaries(
        {}, optional={"low": VALUES, "high": VALUES, "log": VALUES, "step": VALUES, "values": VALUES, "when": ANYTHING}
    ),
)
SPECS = st.fixed_dictionaries(
    {},
    optional={
        "name": st.just("s") | VALUES,
        "base": CONFIGURATIONS | ANYTHING,
        "space": st.dictionaries(FIELDS, ENTRIES, max_size=4) | ANYTHING,
        "sampler": st.sampled_from(["grid", "random", "tpe"]) | VALUES,
        "trials": st.integers(0, 5) | VALUES,
        "repeats": st.integers(0, 5) | VALUES,
        "pruner": st.just("successive_halving") | VALUES,
        "min_epochs": st.integers(0, 5) | VALUES,
        "objective": st.just("val_loss") | VALUES,
        "workers": VALUES,
        "threads": VALUES,
        "budget": ANYTHING,
        "experiment": VALUES,
        "log_models": VALUES,
        "more": VALUES,
    },
)


@fuzz(values=CONFIGURATIONS)
def test_configurations(work, values):
    with only_our_errors():
        config = resolve(values)
        assert resolve(config.as_options()) == config


@fuzz(values=SPECS)
def test_specs(work, values):
    with only_our_errors():
        spec = parse_spec(values, work)
        assert parse_spec(yaml.safe_load(spec.as_yaml()), work).as_data() == spec.as_data()


YAML_WORDS = [b"a: ", b"- ", b"{", b"}", b"[", b"&a ", b"*a", b"!!python/object/apply:os.system ", b"<<: ", b"'", b'"']
YAML_WORDS += [
    b"\n",
    b"  ",
    b"? ",
    b"| ",
    b"%YAML",
    b"--- ",
    b"\x00",
    b"\xff",
    b"\t",
    b"epochs: 3",
    b"2026-02-31",
    b".inf",
]


@fuzz(parts=st.lists(st.sampled_from(YAML_WORDS) | st.binary(max_size=6), max_size=14))
def test_yaml_bytes(work, parts):
    (work / "x.yaml").write_bytes(b"".join(parts))
    with only_our_errors():
        resolve(read_yaml(work / "x.yaml"))
    with only_our_errors():
        load_spec(work / "x.yaml")
