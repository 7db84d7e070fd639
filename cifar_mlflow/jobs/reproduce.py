"""Repeat a recorded training, and say whether it comes to the same numbers."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from cifar_mlflow import process_state
from cifar_mlflow.analysis import reproduction
from cifar_mlflow.config.rules import resolve, resolve_moved
from cifar_mlflow.config.training import TrainingConfig
from cifar_mlflow.errors import ConfigurationError, ModelError, TrackingError, TrainingError
from cifar_mlflow.jobs.listener import say, warn
from cifar_mlflow.jobs.train import train_watched
from cifar_mlflow.jobs.training import data, pretrained, record
from cifar_mlflow.jobs.training.neighbours import Neighbours, place_of
from cifar_mlflow.text import as_option, count, option_name, whole_number
from cifar_mlflow.tracking import store as tracking_store
from cifar_mlflow.tracking.outbox.spooled_recorder import SpooledRecorder
from cifar_mlflow.tracking.reading import metric_curves, recorded_training
from cifar_mlflow.tracking.reading.recorded_training import CONDITIONS, RecordedTraining
from cifar_mlflow.tracking.writing import provenance
from cifar_mlflow.tracking.writing.recorder import Recorder
from cifar_mlflow.tracking.writing.system_metrics import enable

if TYPE_CHECKING:
    from cifar_mlflow.learning.data.datasets import Dataset
    from cifar_mlflow.learning.networks.pretrained import Pretrained

TOLERANCE = 0.001
# The metrics that must be equal: images_per_second depends on the machine, test_* are written by other commands.
EPOCH_METRICS = (
    "val_accuracy", "val_loss", "val_balanced_accuracy",
    "epoch_test_accuracy", "epoch_test_loss", "epoch_test_balanced_accuracy", "train_accuracy", "train_loss", "lr",
)  # fmt: skip
FINAL_METRICS = ("best_val_accuracy", "final_val_accuracy", "final_val_balanced_accuracy")


@dataclass(frozen=True)
class Difference:
    """Something that differed when the original was trained, or of which nobody can know that it did not."""

    what: str
    there: str
    here: str

    def __str__(self) -> str:
        if self.there == self.here:
            return f"may differ: {self.what} {self.there} there and here"
        return f"differs: {self.what} {self.there} there, {self.here} here"


@dataclass(frozen=True)
class ReproduceOutcome:
    """The new run, the run that it reproduces, what differed at its start, and the comparison of their numbers."""

    run_id: str
    run_name: str
    url: str | None
    reproduces: str
    differences: tuple[Difference, ...]
    comparison: reproduction.Reproduction

    @property
    def reproduced(self) -> bool:
        """True if every number is the same, or within the tolerance."""
        return self.comparison.verdict != reproduction.DIFFERENT

    def explanation(self) -> str:
        """What to look at if the run was not reproduced."""
        if not self.differences:
            return "no difference of code, versions or machine was found, so look at what is not recorded, as drivers"
        return f"different at its start: {', '.join(difference.what for difference in self.differences)} (see above)"

    def document(self) -> dict[str, object]:
        """Everything, for JSON."""
        start = {**vars(self), "differences": list(map(asdict, self.differences))}
        del start["comparison"]
        return {**start, **self.comparison.document()}


@process_state.preserved()
def reproduce(
    what: str,
    *,
    changes: Mapping[str, object] | None = None,
    tolerance: float = TOLERANCE,
    wait: bool = False,
    system_metrics: bool = False,
) -> ReproduceOutcome:
    """Trains the run that `what` names, by its id or by a registered model, again in its experiment, and compares.

    `changes` are fields of the configuration to set by hand: threads, precision, data_dir (where the data are now).
    Accuracies are in per cent, and a and b are equal if |a - b| <= tolerance * max(1, |a|). `wait` and
    `system_metrics` are as in `train`.

    Raises:
        ModelError: there is no such run, it trained nothing, or it has no epoch to compare with.
        DataError: the data are missing, or not those that the original trained on.
        CifarMlflowError: as in `train`; nothing is left RUNNING.
    """
    neighbours, changes = Neighbours(wait=wait), changes or {}
    enable(system_metrics)
    store = tracking_store.connect()
    original = recorded_training.find(store, what)
    before = metric_curves.read_run(store, original.run_id, (*EPOCH_METRICS, *FINAL_METRICS))
    reached = len(before.get("lr", {}))
    if not reached:
        raise ModelError(f"the run {original.run_id} ({original.status}) has no epoch to compare with")
    if reached < original.config.epochs:
        say(f"{reached} of {count(original.config.epochs, 'epoch')} are compared: the original is {original.status}")
    config = _as_used(original, changes)
    dataset = data.load_recorded(config, original.tags["dataset_digest"], original.run_id)
    weights = pretrained.read(config, store, original.tags)
    differences = _differences(original, config)
    for difference in differences:
        say(str(difference))
    with neighbours.turn(f"{original.name}-again", place_of(config)):
        run = _train_again(store, original, config, dataset, weights)
    again = metric_curves.read_run(store, run.run_id, before)
    comparison = reproduction.compare(before, again, tolerance)
    outcome = ReproduceOutcome(run.run_id, run.run_name, run.url, original.run_id, tuple(differences), comparison)
    run.log_files({"reproduction.json": json.dumps(outcome.document(), indent=2, allow_nan=False).encode()})
    run.set_tags({"reproduction": comparison.summary})
    return outcome


@process_state.preserved()
def training_command(what: str, *, changes: Mapping[str, object] | None = None) -> str:
    """A shell command that trains the run again from a clone of the repository; what it cannot promise is warned of.

    Raises:
        ModelError: there is no such run, or it trained nothing.
    """
    original = recorded_training.find(tracking_store.connect(), what)
    others = {name: value for name, value in (changes or {}).items() if name != "data_dir"}
    there = _found(original, changes or {}).model_dump()
    config = resolve(
        {**there, **_used(original), **others, "pretrained": pretrained.named(original.config, original.tags)}
    )
    words = ["cifar-mlflow", "train"]
    for name, value in config:
        if name in ("seed", "device", "precision", "threads") or value != TrainingConfig.model_fields[name].default:
            words += [option_name(name), as_option(value)]
    if "network_digest" in original.tags:
        fetched = f"mlflow artifacts download --run-id {original.run_id} --artifact-path network"
        warn(f"the run has a network of its own: its files must be where the command is run ({fetched})")
    commit, dirty = _commit(original)
    if commit is None:
        warn("the commit of the run is unknown, so other code may come to other numbers")
        return shlex.join(words)
    if dirty:
        warn(f"the run had changes that are not in the commit {commit}, so it may come to other numbers")
    return f"git checkout {shlex.quote(commit)} && {shlex.join(words)}"


def _found(original: RecordedTraining, changes: Mapping[str, object]) -> TrainingConfig:
    """The original's configuration, with its data where `changes` say that they are now."""
    return resolve_moved(original.config, str(changes["data_dir"]) if "data_dir" in changes else None)


def _used(original: RecordedTraining) -> dict[str, str]:
    """What came of the settings that may be auto."""
    tags = original.tags
    return {"device": tags["device"], "precision": tags["precision_used"], "threads": tags["threads_used"]}


def _as_used(original: RecordedTraining, changes: Mapping[str, object]) -> TrainingConfig:
    """The original's configuration, with each `auto` that would mean something else here set to what it meant there."""
    from cifar_mlflow.learning import hardware

    used = _used(original)
    device = _device(original.config, used["device"])
    if device != original.config.device:
        say(f"--device {device} instead of {original.config.device}, to come closest to {used['device']}")
    others = {name: value for name, value in changes.items() if name != "data_dir"}
    same = _found(original, changes).model_dump()
    config = resolve({**same, "threads": used["threads"], "device": device, **others}, "options")
    here = str(hardware.choose_precision(config, hardware.choose_device(config))).removeprefix("torch.")
    if "precision" in changes or here == used["precision"]:
        return config
    say(f"--precision {used['precision']} as in the original; {config.precision} would be {here} here")
    return resolve({**config.model_dump(), "precision": used["precision"]})


def _device(config: TrainingConfig, used: str) -> str:
    """The setting that leads to the device `used`; auto if this machine has none."""
    from cifar_mlflow.learning import hardware

    for setting in (config.device, used):
        with suppress(ConfigurationError):
            if hardware.choose_device(resolve({"device": setting})).type == used:
                return setting
    return "auto"


def _differences(original: RecordedTraining, config: TrainingConfig) -> list[Difference]:
    """What differs between the original's training and one here, the code first."""
    from cifar_mlflow.learning import hardware
    from cifar_mlflow.learning.networks import source

    device = hardware.choose_device(config)
    here = provenance.tags() | record.hardware_tags(config, device, hardware.choose_precision(config, device))
    if config.threads != "auto":
        here["threads_used"] = str(config.threads)
    there, ours = _commit(original), provenance.commit_and_state()
    found = []
    # Two checkouts with uncommitted changes may hold different code, whatever their commit.
    if there != ours or there[0] is None or there[1]:
        found.append(Difference("commit", _code(*there), _code(*ours)))
    # Another version of this package may know other options, or read them in another way.
    if (ours_read := original.config.fingerprint) != (recorded := original.tags["config_fingerprint"]):
        found.append(Difference("configuration fingerprint", recorded, ours_read))
    recorded = original.tags.get("network_digest", "unknown")
    if (network := source.of(config.network)) and network.digest != recorded:
        found.append(Difference(f"source of the network {config.network}", recorded, network.digest))
    found += [
        Difference(what, original.tags.get(tag, "unknown"), here.get(tag, "unknown"))
        for tag, what in CONDITIONS.items()
        if tag != "git_commit" and original.tags.get(tag) != here.get(tag)
    ]
    return found


def _commit(original: RecordedTraining) -> tuple[str | None, bool]:
    """The original's commit, None if it is unknown, and whether there were changes besides."""
    commit = original.tags.get("git_commit", "unknown")
    return (None, False) if commit.startswith("unknown") else (commit, original.tags.get("git_dirty") == "true")


def _code(commit: str | None, dirty: bool) -> str:
    return "unknown" if commit is None else f"{commit[:12]}{' with uncommitted changes' if dirty else ''}"


def _train_again(
    store: tracking_store.Store,
    original: RecordedTraining,
    config: TrainingConfig,
    dataset: Dataset,
    weights: Pretrained | None,
) -> Recorder:
    """Trains into a new run and returns it; a training that fails as the original did is a success."""
    started: list[SpooledRecorder] = []

    def start() -> SpooledRecorder:
        tags = {"kind": "single", "reproduces": original.run_id}
        started.append(SpooledRecorder.start(store, original.experiment, f"{original.name}-again", tags))
        return started[-1]

    try:
        # Of --max-minutes the clock is not asked again.
        last_epoch = whole_number(original.tags.get("stopped_epoch"), config.epochs)
        train_watched(store, config, dataset, start, pretrained=weights, last_epoch=last_epoch)
    except TrainingError as error:
        if str(error) != original.tags.get("failure"):
            raise
        say(f"the training failed as the original did: {error}")
    run = started[-1]
    if run.waiting:
        wait = f"{count(run.waiting, 'write')} for the tracking store still waiting in {run.directory}"
        raise TrackingError(f"trained, but {wait}: `cifar-mlflow sync`, then compare {run.run_id} with the original")
    return Recorder(store, run.run_id, run.experiment_id, run.run_name)
