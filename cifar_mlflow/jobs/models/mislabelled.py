"""List the training images whose labels are likely to be wrong, by the runs of a sweep that had not seen them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from cifar_mlflow import process_state
from cifar_mlflow.analysis import mislabelled as analysis
from cifar_mlflow.analysis import plots
from cifar_mlflow.config.rules import resolve, resolve_moved
from cifar_mlflow.errors import ModelError
from cifar_mlflow.jobs.listener import bar
from cifar_mlflow.jobs.training import data
from cifar_mlflow.jobs.training.results import FOLD_PREDICTIONS
from cifar_mlflow.tables import csv_lines
from cifar_mlflow.text import count as counted
from cifar_mlflow.tracking import store as tracking_store
from cifar_mlflow.tracking.reading import evaluations, runs, sweeps
from cifar_mlflow.tracking.store import Run, Store
from cifar_mlflow.tracking.writing.recorder import Recorder, mark_job

if TYPE_CHECKING:
    from cifar_mlflow.learning.data.datasets import Dataset

SHOWN = 48  # images on the contact sheet
VALIDATION_PREDICTIONS = "val_predictions.npz"


@dataclass(frozen=True)
class Suspect:
    """A training image, and what is said of it by `runs` networks that were trained without it.

    `index` is its position in the training set, `image` the name of its file in a folder, else its number. `predicted`
    is the class of the highest mean probability; `contradicted` counts the runs that told another class than `label`.
    `margin` is the label's mean probability less that of the most probable other class, and `likely` whether confident
    learning counts the label as wrong.
    """

    rank: int
    image: str
    index: int
    label: str
    predicted: str
    margin: float
    contradicted: int
    runs: int
    likely: bool


COLUMNS = tuple(Suspect.__dataclass_fields__)


@dataclass(frozen=True)
class MislabelledOutcome:
    """All images that were judged, the most suspicious first; `likely` is how many labels are counted as wrong."""

    sweep: str
    run_id: str
    configuration: str
    suspects: tuple[Suspect, ...]
    likely: int
    contact_sheet: bytes

    def as_csv(self) -> str:
        return csv_lines([COLUMNS, *(vars(each).values() for each in self.suspects)])


@process_state.preserved()
def mislabelled(sweep: str, *, data_dir: str | None = None) -> MislabelledOutcome:
    """Ranks the training images of a sweep with folds by how its runs contradict their labels; the best first.

    Taken are the runs of the sweep's best configuration, each for the images that it was trained without: its fold, and
    the validation images. The list and a contact sheet are recorded at the sweep. `data_dir` is where the data are now.

    Raises:
        ModelError: there is no such sweep, it has no folds or no winner, or a fold has no finished run.
        DataError: the data are not those that the sweep was trained on.
        TrackingError: the store cannot be read or written.
    """
    store = tracking_store.connect()
    mark_job(store)
    best = runs.find_kept(store, sweeps.winner(store, sweep))
    config, tags = runs.configuration(best), best.data.tags
    if config.folds == "none":
        raise ModelError(f"the sweep {sweep} has no folds: its runs were trained on all images that they could judge")
    children = sweeps.children(store, best.info.experiment_id, tags["sweep_id"], "FINISHED")
    alike = [run for run in children if run.data.tags["config_fingerprint"] == tags["config_fingerprint"]]
    lacking = set(range(config.folds)) - {runs.configuration(run).seed % config.folds for run in alike}
    if lacking:
        missing = ", ".join(f"{each + 1}/{config.folds}" for each in sorted(lacking))
        raise ModelError(f"the sweep {sweep} has no finished run of the fold {missing}; start it again")
    whole = resolve({**resolve_moved(config, data_dir).model_dump(), "folds": "none"})
    dataset = data.load_recorded(whole, tags["dataset_digest"], best.info.run_id)
    judged = _judged(store, alike, len(dataset.classes))
    found = analysis.suspicion(judged.labels, judged.probabilities)
    suspects = tuple(
        Suspect(
            rank,
            dataset.names[judged.index[place]] if dataset.names else str(judged.index[place]),
            int(judged.index[place]),
            dataset.classes[judged.labels[place]],
            dataset.classes[found.predicted[place]],
            round(float(found.margin[place]), 6),
            int(judged.contradicted[place]),
            int(judged.runs[place]),
            bool(found.likely[place]),
        )
        for rank, place in enumerate(found.order.tolist(), 1)
    )
    parent = store.client.get_run(tags["mlflow.parentRunId"])
    title = f"{parent.info.run_name}: the labels most contradicted, of {counted(len(suspects), 'training image')}"
    sheet = _contact_sheet(dataset, judged, found, title)
    outcome = MislabelledOutcome(
        parent.info.run_name, parent.info.run_id, tags["config_fingerprint"], suspects, int(found.likely.sum()), sheet
    )
    run = Recorder(store, parent.info.run_id, parent.info.experiment_id, parent.info.run_name)
    run.log_files({"mislabelled.csv": outcome.as_csv().encode(), "mislabelled.png": sheet})
    return outcome


@dataclass(frozen=True)
class _Judged:
    """By image: position in the training set, label, mean probabilities, contradicting runs, runs that judged it."""

    index: np.ndarray
    labels: np.ndarray
    probabilities: np.ndarray
    contradicted: np.ndarray
    runs: np.ndarray


def _judged(store: Store, alike: list[Run], classes: int) -> _Judged:
    """What the runs say of images that they have not seen."""
    parts = []
    with bar(len(alike), "reading", " runs") as update:
        for run in alike:
            for path in (FOLD_PREDICTIONS, VALIDATION_PREDICTIONS):
                answers = evaluations.read_probabilities(store, run.info.run_id, path)
                if answers is None and path == FOLD_PREDICTIONS:
                    raise ModelError(f"the run {run.info.run_id} has lost its {path}")
                parts += [] if answers is None else [answers]
            update(1)
    index, labels, probabilities = (np.concatenate(each) for each in zip(*parts, strict=True))
    places, first, inverse, times = np.unique(index, return_index=True, return_inverse=True, return_counts=True)
    means = np.zeros((len(places), classes))
    np.add.at(means, inverse, probabilities)
    contradicted = np.bincount(inverse, probabilities.argmax(1) != labels)
    return _Judged(places, labels[first], means / times[:, None], contradicted, times)


def _contact_sheet(dataset: Dataset, judged: _Judged, found: analysis.Suspicion, title: str) -> bytes:
    """The first of the list, each with its label and what it was taken for."""
    places, names = found.order[:SHOWN], np.array(dataset.classes)
    labels, taken = judged.labels[places], found.predicted[places]
    confidence = 100 * judged.probabilities[places, taken]
    images = _pixels(dataset, judged.index[places])
    return plots.gallery(images, list(names[labels]), list(names[taken]), list(confidence), title)


def _pixels(dataset: Dataset, index: np.ndarray) -> np.ndarray:
    """The images at positions of the training set, of which some were held out for validation."""
    train, held_out = dataset.train.pixels, dataset.validation.pixels
    where = np.empty(len(train) + len(held_out), np.int64)
    is_held_out = np.isin(np.arange(len(where)), dataset.validation_indices)
    where[~is_held_out], where[dataset.validation_indices] = np.arange(len(train)), np.arange(len(held_out))
    return np.stack([(held_out if is_held_out[each] else train)[where[each]].numpy() for each in index])
