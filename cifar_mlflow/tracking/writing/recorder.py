"""What a job writes to its run, as requests to the store."""

import json
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import Self

from cifar_mlflow.errors import TrackingError
from cifar_mlflow.tracking import processes, queries
from cifar_mlflow.tracking.store import Store, active_run, redact, translated_errors
from cifar_mlflow.tracking.writing import digests, model_files

KEY_TAG = "mlflow.cifar_mlflow.key"  # of a logged model, by which one that was begun is found again
ABOUT = ("weights", "epoch", "temperature")  # what the tags of a logged model tell of it


class Recorder:
    """Writes one run. Every method raises TrackingError if the store refuses.

    `parameters` are those that the run had when it was taken over from `mlflow run`.
    """

    def __init__(
        self,
        store: Store,
        run_id: str,
        experiment_id: str,
        run_name: str,
        parameters: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        self._store, self._client, self.parameters = store, store.client, parameters
        self.run_id, self.experiment_id, self.run_name = run_id, experiment_id, run_name

    @classmethod
    def start(cls, store: Store, experiment: str, run_name: str, tags: Mapping[str, str]) -> Self:
        """A new run of `experiment`; under `mlflow run` the run that MLflow created, with MLflow's names.

        It is the child of the run that the caller has begun by `mlflow.start_run()`, if any.
        """
        # These tags come with the run, so that one that breaks off at once tells whose it was.
        tags = {**processes.process_tags(), **parent_tags(store), **tags}
        if store.project_run_id:
            run = store.client.get_run(store.project_run_id)
            info = run.info
            if info.status != "RUNNING":
                named = f"MLFLOW_RUN_ID names the run {info.run_id}, which is {info.status}"
                raise TrackingError(f"{named}; unset the variable")
            if tags.get("kind") != "job":
                queries.check_artifact_location(store, info.experiment_id)
            recorder = cls(store, info.run_id, info.experiment_id, info.run_name, run.data.params)
            recorder.set_tags(tags)
            return recorder
        experiment_id = store.experiment_id(experiment)
        queries.check_artifact_location(store, experiment_id)
        info = store.client.create_run(experiment_id, tags=dict(tags), run_name=run_name).info
        if not info.run_id:
            raise TrackingError(f"{redact(store.uri)} does not answer as an MLflow server: its runs have no id")
        return cls(store, info.run_id, info.experiment_id, info.run_name)

    @classmethod
    def reopen(cls, store: Store, run_id: str) -> Self:
        """A run that ended or broke off, RUNNING again."""
        run = store.client.get_run(run_id)
        store.client.update_run(run_id, status="RUNNING")
        return cls(store, run_id, run.info.experiment_id, run.info.run_name)

    @property
    def url(self) -> str | None:
        return self._store.run_url(self.experiment_id, self.run_id)

    def log_parameters(self, parameters: Mapping[str, str]) -> None:
        """Logs what is missing: a parameter can be written only once, and `mlflow run` has logged what was typed.

        That it is the same is for the caller to see (`parameters`).
        """
        from mlflow.entities import Param

        logged = self._client.get_run(self.run_id).data.params
        missing = [Param(name, value) for name, value in parameters.items() if name not in logged]
        self._client.log_batch(self.run_id, params=missing)

    def log_metrics(
        self, metrics: Mapping[str, float], step: int = 0, model_id: str | None = None, timestamp: int | None = None
    ) -> None:
        """One write, at `timestamp` (milliseconds; now). The first metric is what MLflow's comparison preselects.

        With the same timestamp, the same write may be repeated: MLflow keeps a point only once.
        """
        from mlflow.entities import Metric

        at = int(time.time() * 1000) if timestamp is None else timestamp
        entries = [Metric(name, value, at, step, model_id=model_id) for name, value in metrics.items()]
        self._client.log_batch(self.run_id, metrics=entries)

    def set_tags(self, tags: Mapping[str, str]) -> None:
        from mlflow.entities import RunTag

        self._client.log_batch(self.run_id, tags=[RunTag(name, value) for name, value in tags.items()])

    def log_dataset(self, name: str, digest: str, source: str, profile: Mapping[str, int], context: str) -> None:
        """The dataset as an input of the run. `digest` has at most 36 characters."""
        from mlflow.entities import Dataset, DatasetInput, InputTag

        dataset = Dataset(name, digest, "local", json.dumps({"uri": source}), profile=json.dumps(dict(profile)))
        self._client.log_inputs(self.run_id, [DatasetInput(dataset, tags=[InputTag("mlflow.data.context", context)])])

    def log_files(self, files: Mapping[str, bytes]) -> None:
        """Artifacts of the run, by path."""
        with tempfile.TemporaryDirectory() as directory:
            write_files(Path(directory), files)
            self.log_directory(Path(directory))

    def log_directory(self, directory: Path) -> None:
        """All files of the directory as artifacts of the run."""
        with self._artifacts():
            self._client.log_artifacts(self.run_id, str(directory))

    @contextmanager
    def _artifacts(self) -> Iterator[None]:
        """Around the writing of artifacts: if it is their place that cannot be written, that is what is told."""
        try:
            yield
        except TrackingError:
            queries.check_artifact_location(self._store, self.experiment_id)
            raise

    def log_saved_model(self, directory: Path, metrics: Mapping[str, float], timestamp: int, key: str) -> str:
        """Logs what `model_files.save` has saved, and the metrics that tell its worth, at `timestamp` (milliseconds).

        Returns the model's id. Creating a model is not repeatable: one that was begun under the same `key` is completed
        instead.
        """
        from mlflow.entities import LoggedModelOutput, LoggedModelStatus

        about = model_files.about(directory)
        models = queries.models_of_run(self._store, self.experiment_id, self.run_id)
        logged = next((model for model in models if model.tags.get(KEY_TAG) == key), None)
        with self._artifacts(), translated_errors(self._store.uri):
            logged = logged or self._client.create_logged_model(
                self.experiment_id,
                name=about["name"],
                source_run_id=self.run_id,
                tags={**{name: about[name] for name in ABOUT if name in about}, KEY_TAG: key},
                model_type="image-classifier",
            )
            model_files.assign(directory, logged)
            self._client.set_logged_model_tags(logged.model_id, digests.tags(directory))
            self._client.log_model_artifacts(logged.model_id, str(directory))
            self._client.finalize_logged_model(logged.model_id, LoggedModelStatus.READY)
            outputs = self._client.get_run(self.run_id).outputs
            # MLflow refuses an output that the run has already.
            if logged.model_id not in {each.model_id for each in (outputs.model_outputs if outputs else [])}:
                self._client.log_outputs(self.run_id, [LoggedModelOutput(logged.model_id, step=int(about["epoch"]))])
        if metrics:
            self.log_metrics(metrics, model_id=logged.model_id, timestamp=timestamp)
        return str(logged.model_id)

    def finish(self, status: str, timestamp: int | None = None) -> None:
        """Ends the run: FINISHED, FAILED or KILLED."""
        self._client.set_terminated(self.run_id, status, timestamp)


def parent_tags(store: Store) -> dict[str, str]:
    """The tag that makes a new run a child of the caller's own active run."""
    parent = active_run(store)
    return {"mlflow.parentRunId": parent.info.run_id} if parent else {}


def write_files(directory: Path, files: Mapping[str, bytes]) -> None:
    """Writes the contents to paths below the directory."""
    for name, content in files.items():
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def mark_job(store: Store) -> None:
    """Marks the run that `mlflow run` has made for a command that trains nothing; its results belong elsewhere."""
    if store.project_run_id:
        Recorder.start(store, "", "", {"kind": "job"})
