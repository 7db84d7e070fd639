"""All that a job writes to its run."""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cifar_mlflow.errors import TrackingError
from cifar_mlflow.tracking import integrity
from cifar_mlflow.tracking.store import Store, translated_errors


@dataclass(frozen=True)
class ExportedModel:
    """A model to log. `module` is a torch module that maps `example` (uint8 images) to class probabilities.

    `weights` is last or best, `epoch` the one after which they were taken, `probabilities` float32 (n, classes) what
    the training's own network answers to the example.
    """

    module: Any
    name: str
    weights: str
    epoch: int
    example: np.ndarray
    probabilities: np.ndarray
    classes: Sequence[str]
    requirements: Sequence[str]


class Recorder:
    """Writes one run. Every method raises TrackingError if the store refuses."""

    def __init__(self, store: Store, run_id: str, experiment_id: str, run_name: str) -> None:
        self._store, self._client = store, store.client
        self.run_id, self.experiment_id, self.run_name = run_id, experiment_id, run_name

    @classmethod
    def start(cls, store: Store, experiment: str, run_name: str, tags: Mapping[str, str]) -> Recorder:
        """A new run of `experiment`; under `mlflow run` the run that MLflow created, with MLflow's names."""
        with translated_errors(store.uri):
            if store.project_run_id:
                run = store.client.get_run(store.project_run_id)
                if run.info.status != "RUNNING":
                    raise TrackingError(
                        f"MLFLOW_RUN_ID names the run {run.info.run_id}, which is {run.info.status}; unset the variable"
                    )
            else:
                # With its tags from the first: a run that is broken off at once must tell whose it was.
                run = store.client.create_run(store.experiment_id(experiment), tags=dict(tags), run_name=run_name)
            recorder = cls(store, run.info.run_id, run.info.experiment_id, run.info.run_name)
            if store.project_run_id:
                recorder.set_tags(tags)
        return recorder

    @property
    def url(self) -> str | None:
        return self._store.run_url(self.experiment_id, self.run_id)

    def log_parameters(self, parameters: Mapping[str, str]) -> None:
        """Logs what is missing: `mlflow run` has logged what was typed, and a parameter can be written only once."""
        from mlflow.entities import Param

        with translated_errors(self._store.uri):
            logged = self._client.get_run(self.run_id).data.params
            missing = [Param(name, value) for name, value in parameters.items() if name not in logged]
            self._client.log_batch(self.run_id, params=missing)

    def log_metrics(self, metrics: Mapping[str, float], step: int = 0, model_id: str | None = None) -> None:
        """One write. The first of `metrics` is what MLflow's comparison preselects."""
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        entries = [Metric(name, value, now, step, model_id=model_id) for name, value in metrics.items()]
        with translated_errors(self._store.uri):
            self._client.log_batch(self.run_id, metrics=entries)

    def set_tags(self, tags: Mapping[str, str]) -> None:
        from mlflow.entities import RunTag

        with translated_errors(self._store.uri):
            self._client.log_batch(self.run_id, tags=[RunTag(name, value) for name, value in tags.items()])

    def log_dataset(self, name: str, digest: str, source: str, profile: Mapping[str, int], context: str) -> None:
        """The dataset as an input of the run. `digest` has at most 36 characters."""
        from mlflow.entities import Dataset, DatasetInput, InputTag

        dataset = Dataset(name, digest, "local", json.dumps({"uri": source}), profile=json.dumps(dict(profile)))
        with translated_errors(self._store.uri):
            self._client.log_inputs(
                self.run_id, [DatasetInput(dataset, tags=[InputTag("mlflow.data.context", context)])]
            )

    def log_files(self, files: Mapping[str, bytes]) -> None:
        """Artifacts of the run, by path."""
        with tempfile.TemporaryDirectory() as directory, translated_errors(self._store.uri):
            for name, content in files.items():
                path = Path(directory) / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(content)
            self._client.log_artifacts(self.run_id, directory)

    def log_model(self, exported: ExportedModel) -> str:
        """Logs the model in the pt2 format, with signature and example; returns its id, m-..."""
        import mlflow.pytorch
        from mlflow.entities import LoggedModelOutput, LoggedModelStatus
        from mlflow.models import Model, ModelSignature
        from mlflow.types import Schema, TensorSpec

        _, *image_shape = exported.example.shape
        signature = ModelSignature(
            inputs=Schema([TensorSpec(np.dtype("uint8"), (-1, *image_shape))]),
            outputs=Schema([TensorSpec(np.dtype("float32"), (-1, len(exported.classes)))]),
        )
        with translated_errors(self._store.uri):
            logged = self._client.create_logged_model(
                self.experiment_id,
                name=exported.name,
                source_run_id=self.run_id,
                tags={"weights": exported.weights, "epoch": str(exported.epoch)},
                model_type="image-classifier",
            )
            try:
                with tempfile.TemporaryDirectory() as directory:
                    path = Path(directory) / "model"
                    mlflow.pytorch.save_model(
                        exported.module,
                        path,
                        mlflow_model=Model(
                            artifact_path=logged.artifact_location,
                            model_uuid=logged.model_id,
                            run_id=self.run_id,
                            model_id=logged.model_id,
                        ),
                        signature=signature,
                        input_example=exported.example,
                        pip_requirements=list(exported.requirements),
                        metadata={"classes": list(exported.classes)},
                        serialization_format="pt2",
                    )
                    integrity.write_example_answer(path, exported.probabilities)
                    self._client.set_logged_model_tags(logged.model_id, integrity.tags(path))
                    self._client.log_model_artifacts(logged.model_id, str(path))
                self._client.finalize_logged_model(logged.model_id, LoggedModelStatus.READY)
            except BaseException:
                self._client.finalize_logged_model(logged.model_id, LoggedModelStatus.FAILED)
                raise
            self._client.log_outputs(self.run_id, [LoggedModelOutput(logged.model_id, step=exported.epoch)])
        return str(logged.model_id)

    def finish(self, status: str) -> None:
        """Ends the run: FINISHED, FAILED or KILLED."""
        with translated_errors(self._store.uri):
            self._client.set_terminated(self.run_id, status)
