"""How large a sweep is and how long it will take, said before it starts."""

import itertools
import statistics
from dataclasses import dataclass, replace

from cifar_mlflow.config import search_space as spaces
from cifar_mlflow.config.rules import without_effect
from cifar_mlflow.config.sweep import SweepConfig
from cifar_mlflow.jobs.sweeping import places, worker
from cifar_mlflow.jobs.sweeping.places import Place
from cifar_mlflow.jobs.sweeping.plan import Plan
from cifar_mlflow.jobs.sweeping.trial import load_dataset
from cifar_mlflow.jobs.training import data
from cifar_mlflow.text import count, duration

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


def estimate(spec: SweepConfig, plan: Plan, place: Place) -> Estimate:
    """The size of the sweep, of which `plan` has some outcomes; how long it takes, where that can be measured here."""
    configurations, done = spec.configurations, len(plan.own_outcomes)
    runs = configurations * spec.repeats
    allowed = spec.budget.runs or runs
    left = max(1, min(plan.runs, allowed) - done) if plan.has_next() and done < allowed else 0
    workers = max(1, min(places.workers(spec, place), left))
    varied = spec.space.get("epochs")
    epochs = round(statistics.fmean(map(int, varied.probes() if varied else [spec.base_config.epochs])))
    text = f"sweep {spec.name}: {count(configurations, 'configuration')} x {count(spec.repeats, 'seed')}"
    text += f" = {count(runs, 'run')}" + (f"; {plan.parts}: {count(plan.runs, 'run')}" if plan.parts else "")
    text += f", {done} done before" if done else ""
    if not left:
        return Estimate(0, workers, epochs, f"{text}: nothing is left to train")
    text += f"; {left} to train by {count(workers, 'worker')} with {count(spec.threads, 'thread')} each"
    found = Estimate(left, workers, epochs, text)
    if place.measured_here:
        text += f": {duration_of(spec, found, worker.images_per_second(spec))}"
    if spec.budget.minutes is not None:
        text += f", at most {spec.budget.minutes:g} min and what is then running"
    if spec.workers != "auto" and spec.workers > place.most_workers(spec):
        text += f" ({spec.workers} workers were asked for; there are {place.room})"
    return replace(found, text=text)


def warnings(spec: SweepConfig) -> list[str]:
    """What has no effect in any of the combinations, batches beyond all images, compiled functions that are missing."""
    from cifar_mlflow.learning.compiled import bindings

    told = bindings.warning() if spec.base_config.accelerate == "auto" else None
    probes = spaces.combinations(spec.space, lambda entry: itertools.islice(entry.probes(), 100))
    combinations = itertools.islice(probes, COMBINATIONS_LOOKED_AT)
    configs = [spec.configuration(values, 0) for values in combinations]
    dataset = load_dataset(spec.base_config)
    by_data = dict.fromkeys(text for config in configs for text in data.without_effect(config, dataset))
    found = [without_effect(config) for config in configs]
    return [*filter(None, [told]), *by_data, *(text for text in found[0] if all(text in texts for texts in found))]


def duration_of(spec: SweepConfig, estimate: Estimate, images_per_second: float) -> str:
    """About how long the sweep takes, where a worker trains so fast."""
    seconds = _seconds_a_run(spec, estimate.epochs, images_per_second)
    return f"about {duration(seconds * estimate.left / estimate.workers + SECONDS_TO_START)}"


def _seconds_a_run(spec: SweepConfig, epochs: int, images_per_second: float) -> float:
    images = len(load_dataset(spec.base_config).train)
    beside = SECONDS_BESIDE_TRAINING + (SECONDS_FOR_MODELS if spec.log_models else 0)
    return epochs * images / images_per_second + beside
