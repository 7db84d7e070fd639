"""Go on with a run that broke off, from its last checkpoint, to the result that it would have come to."""

import functools
from collections.abc import Mapping
from contextlib import closing
from typing import Any

from cifar_mlflow import process_state
from cifar_mlflow.config.paths import with_absolute_paths
from cifar_mlflow.config.rules import recorded, resolve_moved
from cifar_mlflow.config.training import TrainingConfig
from cifar_mlflow.errors import ConfigurationError, ModelError
from cifar_mlflow.jobs.listener import say, warn
from cifar_mlflow.jobs.train import TrainOutcome, train_watched
from cifar_mlflow.jobs.training import data, pretrained
from cifar_mlflow.jobs.training.checkpoints import RunCheckpoints, position
from cifar_mlflow.jobs.training.neighbours import Neighbours, place_of
from cifar_mlflow.jobs.training.record import hardware_tags
from cifar_mlflow.text import as_option, count, option_name
from cifar_mlflow.tracking import processes
from cifar_mlflow.tracking import store as tracking_store
from cifar_mlflow.tracking.reading import resumable
from cifar_mlflow.tracking.reading.recorded_training import CONDITIONS
from cifar_mlflow.tracking.reading.resumable import ResumableRun
from cifar_mlflow.tracking.writing import provenance
from cifar_mlflow.tracking.writing.recorder import mark_job
from cifar_mlflow.tracking.writing.system_metrics import enable

# Of the run whose network has changed.
CHANGED = (
    "is not what the run began with, so it would come to another network. Put back what it was: "
    "mlflow artifacts download --run-id {} --artifact-path network"
)
# What may change the last bits of the numbers, and is not checked otherwise.
COMPARED_TAGS = ("git_commit", "version_torch", "hardware", "kernels_used")


@process_state.preserved()
def resume(
    run_id: str,
    given: Mapping[str, Any] | None = None,
    *,
    experiment: str | None = None,
    run_name: str | None = None,
    wait: bool = False,
    system_metrics: bool = False,
) -> TrainOutcome | None:
    """Continues the run: the same MLflow run, and on the same machine the same weights and metrics to the last bit.

    `run_id` may also be a beginning of the id, or the run's name. The configuration is the run's own. What is `given`
    of it, and the names, must be equal to it, but for `data_dir`, where the data are now; `wait` and `system_metrics`
    are as in `train`. None is returned if there was no training left to do, only writes to deliver.

    Raises:
        ModelError: there is no such run, it cannot be taken up, or its checkpoints are elsewhere or damaged.
        TrackingError: another process is at work on it, or the store cannot be used.
        ConfigurationError: what was given differs, the machine lacks the run's device, or the user's own network has
            changed.
        DataError: the data are not those that the run trained on.
        CifarMlflowError: as in `train`; nothing is left RUNNING.
    """
    neighbours, checkpoints = Neighbours(wait=wait), RunCheckpoints()
    enable(system_metrics)
    store = tracking_store.connect()
    mark_job(store)
    run_id = resumable.named(store, run_id)
    delivered, refused = resumable.deliver_waiting(store, run_id)
    if delivered:
        say(f"delivered {count(delivered, 'write')} of the run that had waited on disk")
    for reason in refused:
        warn(f"the store refuses for good: {reason}")
    run = resumable.find(store, run_id)
    with closing(checkpoints):
        checkpoints.open(run.offline_id if checkpoints.has(run.offline_id) else run.run_id)
        run = resumable.find(store, run_id)  # another process may have ended it before this one had it for itself
        if run.status == "FINISHED":
            checkpoints.discard()  # they may have outlived a process that was killed at its very end
            if delivered and not refused:
                return None
            raise ModelError(f"the run {run_id} is finished: nothing of it is left to train")
        given = dict(given or {})
        data_dir = given.pop("data_dir", None)
        _check_given(run, given, experiment, run_name)
        saved = _last_checkpoint(checkpoints, run)
        config = resolve_moved(run.config, data_dir)
        dataset = data.load_recorded(config, run.tags["dataset_digest"], run.run_id)
        weights = pretrained.read(config, store, run.tags)
        differences = _differences(run, saved)
        for difference in differences:
            warn(f"{difference}; the numbers may come out otherwise than in one go")
        say(f"resuming the run {run_id} ({run.name}) " + (f"after {position(saved)}" if saved else "from epoch 1"))
        tags = {"kind": "single", **({"resume_differences": "; ".join(differences)} if differences else {})}
        start = functools.partial(resumable.take_up, store, run, tags)
        with neighbours.turn(run.name, place_of(run.config)):
            return train_watched(store, run.config, dataset, start, checkpoints, pretrained=weights)


def _check_given(run: ResumableRun, given: Mapping[str, Any], experiment: str | None, run_name: str | None) -> None:
    wanted = recorded({**run.config.model_dump(), **given}, "options")
    names = [("--experiment", run.experiment, experiment), ("--run-name", run.name, run_name)]
    differing = [*_differing(run, wanted), *(each for each in names if each[2] not in (None, each[1]))]
    if differing:
        faults = [f"{option}: given is {theirs}, the run has {ours}" for option, ours, theirs in differing]
        faults.append("--resume: a run goes on as it began; leave the other options away")
        raise ConfigurationError(faults, "options")


def _differing(run: ResumableRun, other: TrainingConfig) -> list[tuple[str, str, str]]:
    """Option, the run's value and the other's, of each field in which they differ."""
    return [
        (option_name(name), as_option(value), as_option(getattr(other, name)))
        for name, value in with_absolute_paths(run.config)
        if value != getattr(with_absolute_paths(other), name)
    ]


def _last_checkpoint(checkpoints: RunCheckpoints, run: ResumableRun) -> Mapping[str, Any] | None:
    """The content of the run's last checkpoint; None if it broke off before its first."""
    saved, faults = checkpoints.read()
    directory = checkpoints.directory
    for fault in faults:
        warn(f"{fault}; the one before it is used")
    if saved is None:
        reached = max((max(steps) for steps in run.recorded.steps.values()), default=0)
        if processes.is_elsewhere(run.tags) or reached > 1:
            raise ModelError(
                f"the run {run.run_id}, trained on {run.tags.get('host')}, has {count(reached, 'epoch')} and no "
                f"checkpoint in {directory}; copy that directory from there, or set CIFAR_MLFLOW_STATE to where "
                f"checkpoints/{directory.name} is"
            )
        say(f"the run broke off before its first checkpoint (there is none in {directory}), so it begins with epoch 1")
        return None
    if saved["run_id"] != directory.name:
        raise ModelError(f"{directory} holds checkpoints of another run, {saved['run_id']}; put the run's own there")
    config = recorded(saved["config"], f"checkpoint in {directory}")
    faults = [
        f"{option}: the checkpoint has {theirs}, the run {ours}" for option, ours, theirs in _differing(run, config)
    ]
    if saved["dataset_digest"] != run.tags["dataset_digest"]:
        faults.append(f"dataset digest: it has {saved['dataset_digest']}, the run {run.tags['dataset_digest']}")
    if faults:
        raise ConfigurationError(faults, f"checkpoint in {directory}")
    return saved


def _differences(run: ResumableRun, saved: Mapping[str, Any] | None) -> list[str]:
    """What is another here than it was when the run was last at work.

    Raises:
        ConfigurationError: it is the device, on which alone the run can go on, or the user's own network.
    """
    from cifar_mlflow.learning import hardware
    from cifar_mlflow.learning.networks import source

    device = hardware.choose_device(run.config)
    if saved and saved["training"]["device"] != device.type:
        told = f"--device: the run trains on {saved['training']['device']} and cannot go on on {device.type}"
        raise ConfigurationError(told, "environment")
    network, began_with = source.of(run.config.network), run.tags.get("network_digest")
    if network and began_with not in (None, network.digest):
        raise ConfigurationError(f"--network: {run.config.network} {CHANGED.format(run.run_id)}", "environment")
    unknown = ["source of the network: the run recorded none"] if network and began_with is None else []
    here = provenance.tags() | hardware_tags(run.config, device, hardware.choose_precision(run.config, device))
    return unknown + [
        f"{CONDITIONS[tag]}: the run had {run.tags[tag]}, here is {here[tag]}"
        for tag in COMPARED_TAGS
        if run.tags.get(tag, here[tag]) != here[tag]
    ]
