"""A sweep whose data or network have changed since its runs is refused, like one whose spec has."""

import numpy as np
import pytest
import yaml
from support import tiny_arrays
from sweeps import BASE

from cifar_mlflow.config.rules import resolve
from cifar_mlflow.config.sweep import SweepConfig
from cifar_mlflow.errors import ConfigurationError
from cifar_mlflow.jobs.sweeping.earlier import refuse_changed
from cifar_mlflow.records import RunRecord

OWN = "mine:build"


def spec(**base):
    values = {"kind": "choice", "values": ["relu", "elu"]}
    return SweepConfig.model_validate(
        {"name": "s", "base": {"dataset": "digits", **base}, "space": {"activation": values}}
    )


def record(run_id="1" * 32, data="d", network="", status="FINISHED", parameters=None, **tags):
    config = resolve({"dataset": "digits", "activation": "elu", **(parameters or {})})
    found = {"run_fingerprint": config.run_fingerprint(data, network), "dataset_digest": data}
    found |= {"network_digest": network} if network else {}
    return RunRecord(run_id, "r", status, 0, dict(config), tags=found | tags)


def digests(data="d", network=""):
    return lambda settings: (data, network, "")


def told(records, now, **base):
    with pytest.raises(ConfigurationError) as raised:
        refuse_changed(spec(**base), records, now)
    return raised.value.faults


def test_the_same_data_and_network_are_taken():
    refuse_changed(spec(), [record(), record()], digests())
    own = {"network": OWN}
    refuse_changed(spec(**own), [record(network="n", parameters=own)], digests(network="n"))


def test_other_data_are_told_with_the_runs_and_what_to_do():
    faults = told([record(), record("2" * 32)], digests(data="e"))
    what = f"dataset: digits is not what 2 runs (such as {'1' * 32}) had; then it had the digest d, now it has e"
    assert faults == [what, "a sweep can only be added to; put back what it was, or give the changed one another name"]


def test_another_network_and_one_that_was_not_recorded_are_told():
    own = {"network": OWN}
    assert told([record(network="n", parameters=own)], digests(network="m"), **own)[0] == (
        f"network: mine:build is not what 1 run (such as {'1' * 32}) had; then it had the digest n, now it has m"
    )
    assert "no digest was recorded then" in told([record(parameters=own)], digests(network="m"), **own)[0]


def test_runs_that_this_version_would_not_know_again_are_told():
    faults = told([record(run_fingerprint="0" * 16)], digests())
    assert faults[0].startswith("version: this one of cifar-mlflow would train again what 1 run ")


@pytest.mark.parametrize(
    "given",
    [{"status": "KILLED"}, {"status": "RUNNING"}, {"status": "FAILED", "failure_type": "TypeError"}],
)
def test_what_is_no_result_is_trained_again_with_what_is_there_now(given):
    refuse_changed(spec(), [record(**given)], digests(data="e"))


@pytest.mark.parametrize(
    "given",
    [{"status": "KILLED", "pruned": "true"}, {"status": "FAILED", "failure_type": "Diverged"}],
)
def test_what_was_pruned_or_diverged_is_a_result(given):
    assert len(told([record(**given)], digests(data="e"))) == 2


def test_a_sweep_goes_on_where_its_data_were_moved_and_never_with_others(cifar, work, children, parent):
    def write(data, seeds):
        sweep = {"name": "s", "experiment": "e", "base": {**BASE, "dataset": data, "epochs": 1}, "repeats": seeds}
        more = {"space": {"activation": ["relu"]}, "workers": 1, "log_models": False}
        (work / "sweep.yaml").write_text(yaml.safe_dump(sweep | more))

    np.savez(work / "mine.npz", **tiny_arrays())
    write("mine.npz", 1)
    assert cifar("sweep", "sweep.yaml").code == 0
    (work / "moved").mkdir()
    (work / "mine.npz").rename(work / "moved" / "images.npz")
    write("moved/images.npz", 1)
    outcome = cifar("sweep", "sweep.yaml")
    assert outcome.code == 0, outcome.output
    assert "nothing is left to train" in outcome.stderr
    np.savez(work / "moved" / "images.npz", **tiny_arrays(seed=1))
    write("moved/images.npz", 2)
    before = parent().data.to_dictionary()
    outcome = cifar("sweep", "sweep.yaml")
    assert outcome.code == 2
    assert "images.npz is not what 1 run (such as" in outcome.stderr
    assert (len(children()), parent().info.status, parent().data.to_dictionary()) == (1, "FINISHED", before)
