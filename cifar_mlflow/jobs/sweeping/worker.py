"""What a worker of a sweep is asked for: to train a trial, or, as the first of all, to measure how fast it is."""

import dataclasses
from contextlib import nullcontext
from dataclasses import dataclass

from cifar_mlflow.config.sweep import SweepConfig
from cifar_mlflow.jobs.listener import current_listener
from cifar_mlflow.jobs.sweeping import trial
from cifar_mlflow.jobs.sweeping.trial import TrialRun
from cifar_mlflow.records import TrialOutcome
from cifar_mlflow.tuning.executors import Tell

SAMPLE_IMAGES = 1024  # trained on twice to measure the speed: the first time warms up


@dataclass(frozen=True)
class Sample:
    """Asks for the speed of the base configuration."""


def work(
    spec: SweepConfig, experiment: str, asked: TrialRun | Sample, tell: Tell, *, offline: bool, elsewhere: bool
) -> TrialOutcome | float:
    """The outcome of a trial, see `trial.run_trial`, or the images a second; `elsewhere` than on the driver's machine,
    a trial has ended when the store has it.
    """
    if isinstance(asked, Sample):
        return images_per_second(spec)
    with trial.delivered(asked) if elsewhere else nullcontext():
        return trial.run_trial(spec, experiment, asked, tell, offline=offline)


def images_per_second(spec: SweepConfig) -> float:
    """Of the base configuration, in this process."""
    from cifar_mlflow.learning import hardware
    from cifar_mlflow.learning.data.datasets import LabeledImages
    from cifar_mlflow.learning.training import Training

    config = spec.base_config
    dataset = trial.load_dataset(config)
    few = LabeledImages(dataset.train.pixels[:SAMPLE_IMAGES], dataset.train.labels[:SAMPLE_IMAGES])
    sample = dataclasses.replace(dataset, train=few, validation=few, test=few)
    measured = config.model_copy(update={"threads": spec.threads, "epochs": 2, "validation_size": "auto"})
    current_listener().computing()
    with hardware.settings_kept():
        *_, result = Training(measured, sample).epochs()
    return float(result.images_per_second)
