"""How large a sweep is and how long it will take, said before it starts."""

import dataclasses
import itertools
import statistics
from dataclasses import dataclass

from cifar_mlflow.config import search_space as spaces
from cifar_mlflow.config.rules import batch_warning, without_effect
from cifar_mlflow.config.sweep import SweepConfig
from cifar_mlflow.jobs.listener import current_listener
from cifar_mlflow.jobs.sweeping.plan import Plan
from cifar_mlflow.jobs.sweeping.trial import load_dataset
from cifar_mlflow.jobs.training.neighbours import cores
from cifar_mlflow.text import count, duration

SAMPLE_IMAGES = 1024  # trained on twice to measure the speed: the first time warms up
SECONDS_TO_START = 10.0  # for torch and MLflow to be imported in each worker
SECONDS_BESIDE_TRAINING = 0.5  # of a run: its figures, its predictions and what it writes
SECONDS_FOR_MODELS = 1.0  # to export and log the last and the best
COMBINATIONS_LOOKED_AT = 500


@dataclass(frozen=True)
class Estimate:
    """`left` runs to train by `workers`, of about `epochs` each; `text` says it to the user."""

    left: int
    workers: int
    epochs: int
    text: str


def estimate(spec: SweepConfig, plan: Plan) -> Estimate:
    """The size of the sweep, of which `plan` has some outcomes. The speed of the base configuration is measured."""
    configurations, done = spec.configurations, len(plan.own_outcomes)
    runs = configurations * spec.repeats
    allowed = spec.budget.runs or runs
    left = max(1, min(plan.runs, allowed) - done) if plan.has_next() and done < allowed else 0
    workers = max(1, min(most_workers(spec), left))
    varied = spec.space.get("epochs")
    epochs = round(statistics.fmean(map(int, varied.probes() if varied else [spec.base_config.epochs])))
    text = f"sweep {spec.name}: {count(configurations, 'configuration')} x {count(spec.repeats, 'seed')}"
    text += f" = {count(runs, 'run')}" + (f"; {plan.parts}: {count(plan.runs, 'run')}" if plan.parts else "")
    text += f", {done} done before" if done else ""
    if not left:
        return Estimate(0, workers, epochs, f"{text}: nothing is left to train")
    seconds = _seconds_a_run(spec, epochs) * left / workers + SECONDS_TO_START
    text += f"; {left} to train by {count(workers, 'worker')} with {count(spec.threads, 'thread')} each: "
    text += f"about {duration(seconds)}"
    if spec.budget.minutes is not None:
        text += f", at most {spec.budget.minutes:g} min and what is then running"
    if spec.workers != "auto" and spec.workers > most_workers(spec):
        text += f" ({spec.workers} workers were asked for; there are {count(cores(), 'core')})"
    return Estimate(left, workers, epochs, text)


def most_workers(spec: SweepConfig) -> int:
    """The workers that were asked for, as far as there are cores for them."""
    most = max(1, cores() // spec.threads)
    return most if spec.workers == "auto" else min(spec.workers, most)


def warnings(spec: SweepConfig) -> list[str]:
    """What has no effect in any of the combinations, batches beyond all images, compiled functions that are missing."""
    from cifar_mlflow.learning.compiled import bindings

    told = bindings.warning() if spec.base_config.accelerate == "auto" else None
    probes = spaces.combinations(spec.space, lambda entry: itertools.islice(entry.probes(), 100))
    combinations = itertools.islice(probes, COMBINATIONS_LOOKED_AT)
    configs = [spec.configuration(values, 0) for values in combinations]
    images = len(load_dataset(spec.base_config).train)
    batches = dict.fromkeys(batch_warning(config, images) for config in configs)
    found = [without_effect(config) for config in configs]
    return [*filter(None, [told, *batches]), *(text for text in found[0] if all(text in texts for texts in found))]


def _seconds_a_run(spec: SweepConfig, epochs: int) -> float:
    from cifar_mlflow.learning import hardware
    from cifar_mlflow.learning.data.datasets import LabeledImages
    from cifar_mlflow.learning.training import Training

    config = spec.base_config
    dataset = load_dataset(config)
    images = len(dataset.train)
    few = LabeledImages(dataset.train.pixels[:SAMPLE_IMAGES], dataset.train.labels[:SAMPLE_IMAGES])
    sample = dataclasses.replace(dataset, train=few, validation=few, test=few)
    measured = config.model_copy(update={"threads": spec.threads, "epochs": 2, "validation_size": "auto"})
    current_listener().computing()
    with hardware.settings_kept():
        *_, result = Training(measured, sample).epochs()
    beside = SECONDS_BESIDE_TRAINING + (SECONDS_FOR_MODELS if spec.log_models else 0)
    return epochs * images / result.images_per_second + beside
