"""What a training run writes to its record: parameters, metrics, figures, models, and how it ended."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from cifar_mlflow.analysis.contact_sheet import contact_sheet
from cifar_mlflow.config.paths import absolute, is_path
from cifar_mlflow.config.training import TORCHVISION, TrainingConfig, parsed
from cifar_mlflow.errors import CifarMlflowError, ConfigurationError
from cifar_mlflow.jobs.listener import warn
from cifar_mlflow.jobs.training import data, pretrained, results
from cifar_mlflow.memory import is_out_of_memory
from cifar_mlflow.text import as_option, count, first_line, redact
from cifar_mlflow.tracking.outbox.spooled_recorder import SpooledRecorder
from cifar_mlflow.tracking.reading import runs
from cifar_mlflow.tracking.writing import provenance, ui_views
from cifar_mlflow.tracking.writing.model_files import ExportedModel

if TYPE_CHECKING:
    import torch

    from cifar_mlflow.learning.data.datasets import Dataset
    from cifar_mlflow.learning.export import Classifier
    from cifar_mlflow.learning.networks.pretrained import Pretrained
    from cifar_mlflow.learning.training import EpochResult, Training

    # A network, its weights (last or best), their epoch, and the metrics that tell its worth.
    _Kept = tuple[Classifier, str, EpochResult, dict[str, float]]

EXAMPLE_IMAGES = 4  # two or more, or the exported model would take that number of images only


class Pruned(Exception):
    """Raised by a listener to end a run early, because others do better; the run is KILLED, with the tag pruned."""


def hardware_tags(config: TrainingConfig, device: torch.device, precision: torch.dtype) -> dict[str, str]:
    import torch

    from cifar_mlflow.learning import compiled, hardware

    return {
        "device": device.type,
        "hardware": hardware.describe(device),
        "precision_used": str(precision).removeprefix("torch."),
        "threads_used": str(torch.get_num_threads()),
        "kernels_used": compiled.describe(config, device),
        "version_cuda": str(torch.version.cuda or "none"),
    }


class TrainingRecord:
    """Writes a training to its run, and remembers its epochs.

    `best` is the epoch of the highest accuracy, of several the first; the last epoch if none was scored. `best_weights`
    are the network's after it; there are none if the test set would choose them.
    """

    def __init__(
        self, run: SpooledRecorder, config: TrainingConfig, dataset: Dataset, weights: Pretrained | None = None
    ) -> None:
        self._run, self._config, self.dataset, self._weights = run, config, dataset, weights
        self.results: list[EpochResult] = []
        self.best: EpochResult
        self.best_weights: dict[str, torch.Tensor] = {}

    def log_start(self) -> None:
        """What is to be trained, with what.

        Raises:
            ConfigurationError: the run has a parameter already, with another value.
        """
        from cifar_mlflow.learning.data import preview
        from cifar_mlflow.learning.networks import own, source

        config, dataset, weights = self._config, self.dataset, self._weights
        self._check_parameters()
        self._run.log_parameters(config.as_options())
        network = source.of(config.network)
        files = {f"network/{name}": content for name, content in network.files.items()} if network else {}
        files |= {"config.yaml": config.as_yaml().encode(), **data.files(config, dataset)}
        self._run.log_files({**files, "training_images.png": contact_sheet(preview.preview(config, dataset).numpy())})
        if network and not network.files:
            warn(f"--network {config.network} has no source file, so the run cannot record it")
        if changed := source.edited(config.network):
            was = "was imported by this process, and as it was then it is trained"
            warn(f"{', '.join(changed)} of --network {config.network} has changed since it {was}: start a new process")
        self._run.set_tags(
            {
                "config_fingerprint": config.fingerprint,
                ui_views.COLOR_TAG: ui_views.run_color(config.fingerprint),
                "run_fingerprint": config.run_fingerprint(
                    dataset.digest, network.digest if network else "", weights.digest if weights else ""
                ),
                "dataset_digest": dataset.digest,
                "test_digest": dataset.test_digest,
                **({"network_digest": network.digest} if network else {}),
                **({pretrained.DIGEST: weights.digest, pretrained.SOURCE: weights.source} if weights else {}),
                "mlflow.note.content": self._sentence(),
                **({} if config.folds == "none" else {"fold": f"{config.seed % config.folds + 1}/{config.folds}"}),
                **({"trains_on_all": "true"} if config.trains_on_all else {}),
                **provenance.tags(own.module_file(config)),
            }
        )
        if told := provenance.fault():
            warn(f"the commit of cifar_mlflow cannot be recorded: {told}")
        sizes = {"train": len(dataset.train), "validation": len(dataset.validation), "test": len(dataset.test)}
        self._run.log_dataset(dataset.name, dataset.digest, dataset.source, sizes, "training")
        if config.trains_on_all:
            scored = "the accuracy of each epoch is the test set's" if config.epoch_evaluation else "no epoch is scored"
            never = "no best epoch is kept, and the run can never be chosen as a winner"
            warn(f"--validation-size 0 trains on all images: {scored}, {never}")

    def _check_parameters(self) -> None:
        """`mlflow run` has logged what was typed, and defaults; of that the command may have made something else."""
        used, faults = self._config.as_options(), []
        for name, text in self._run.parameters.items():
            field, value = name.replace("-", "_"), runs.unquoted(text)
            value = absolute(value) if is_path(field, value) else value
            if field in used and as_option(parsed(field, value)) != used[field]:
                faults.append(f"{name}: the run has {text} already, and {used[field]} would be trained")
        if faults:
            faults.append("give each parameter once, by its name in MLproject, as in -P learning_rate=0.01")
            raise ConfigurationError(faults, f"parameters of the run {self._run.run_id}")

    def log_session(self, session: Training, fitted: str = "") -> None:
        """`fitted` is what of the network was changed to fit it to the images."""
        memory_format = str(session.memory_format).removeprefix("torch.")
        tags = hardware_tags(self._config, session.device, session.precision)
        changed = {"network_fitted": fitted} if fitted else {}
        self._run.set_tags({**tags, "memory_format": memory_format, **changed})

    def restore(self, results: Sequence[Mapping[str, Any]], best_weights: dict[str, torch.Tensor]) -> None:
        """Takes over the epochs of a checkpoint, and writes them: the store may lack the last ones."""
        from cifar_mlflow.learning.training import EpochResult

        for values in results:
            self.log_epoch(EpochResult(**values))
        self.best_weights = best_weights

    def log_epoch(self, result: EpochResult, session: Training | None = None) -> None:
        """One write. `session` is where the epoch was trained, if that was not before a checkpoint."""
        # Of epochs that are not scored, whose accuracy is NaN, the last counts.
        if not self.results or not result.held_out_accuracy <= self.best.held_out_accuracy:
            self.best = result
            if session and not self._config.trains_on_all:
                self.best_weights = session.weights()
        self.results.append(result)
        prefix = "epoch_test" if self._config.trains_on_all else "val"
        scores = {
            f"{prefix}_accuracy": result.held_out_accuracy,
            f"{prefix}_loss": result.held_out_loss,
            f"{prefix}_balanced_accuracy": result.held_out_balanced_accuracy,
        }
        metrics = {
            **{name: value for name, value in scores.items() if not np.isnan(value)},
            "train_accuracy": result.train_accuracy,
            "train_loss": result.train_loss,
            "lr": result.learning_rate,
            "images_per_second": result.images_per_second,
        }
        self._run.log_metrics(metrics, step=result.epoch)

    def log_results(self, session: Training, log_models: bool) -> None:
        from cifar_mlflow.learning import evaluation, export

        config, dataset, last, best = self._config, self.dataset, self.results[-1], self.best
        network = export.classifier(session.preprocessing, session.network, session.weights())
        files = self._curves()
        accuracy = last.held_out_accuracy
        kept: list[_Kept] = [(network, "last", last, {} if config.trains_on_all else {"final_val_accuracy": accuracy})]
        if config.trains_on_all:
            summary = "" if np.isnan(accuracy) else f" Test accuracy after the last epoch: {accuracy:.2f}%."
        else:
            if not np.isnan(last.held_out_balanced_accuracy):  # it is of a checkpoint of earlier versions
                self._run.log_metrics({"final_val_balanced_accuracy": last.held_out_balanced_accuracy})
            summary = (
                f" Validation accuracy after the last epoch: {accuracy:.2f}%; "
                f"the best, {best.held_out_accuracy:.2f}%, after epoch {best.epoch}."
            )
            files |= results.prediction_files(
                self._run.run_name, dataset, evaluation.predict(network, dataset.validation)
            )
            best_network = export.classifier(session.preprocessing, session.network, self.best_weights)
            kept.append((best_network, "best", best, {"best_val_accuracy": best.held_out_accuracy}))
        files |= results.fold_files(dataset, network)
        self._run.log_files(files)
        if not log_models or (fault := self._log_models(kept)):
            for *_, metrics in kept:
                self._run.log_metrics(metrics)
        if log_models and fault:
            summary += f" {fault}"
        stopped = {}
        if reason := session.stopping.reason:
            summary += f" It ended after {count(last.epoch, 'epoch')}: {reason}."
            stopped = {"stopped_epoch": str(last.epoch), "stopped_because": reason}
        self._run.set_tags({**stopped, "mlflow.note.content": self._sentence() + summary})

    def _log_models(self, kept: Sequence[_Kept]) -> str:
        """Why there is no model to be served but the weights alone; empty if there is."""
        from cifar_mlflow.learning import evaluation, export

        config, example = self._config, self.dataset.test.first(EXAMPLE_IMAGES)
        models = []
        for network, weights, result, metrics in kept:
            model = ExportedModel(
                network,
                name=results.model_name(config, weights),
                weights=weights,
                epoch=result.epoch,
                example=example.pixels.numpy(),
                probabilities=evaluation.predict(network, example),
                classes=self.dataset.classes,
                requirements=export.requirements(),
            )
            models.append((model, metrics))
        try:
            with export.quiet():
                self._run.log_models(models)
        except (CifarMlflowError, KeyboardInterrupt):
            raise
        except BaseException as error:  # what the code of a user's own network raises is of any class
            if is_out_of_memory(error):
                raise
            networks = {weights: network for network, weights, *_ in kept}
            files = export.weight_files(networks, len(self.dataset.classes), self.dataset.image_shape)
            self._run.log_files({f"weights/{name}": content for name, content in files.items()})
            reason = f"{type(error).__name__}: {first_line(error)}"
            self._run.set_tags({"no_model": reason})
            fault = (
                f"No model to be served could be made ({reason}); weights/load.py in the run's files loads its weights"
            )
            warn(fault)
            return fault
        return ""

    def log_failure(self, error: BaseException) -> None:
        """Ends the run: KILLED if it was interrupted or pruned, else FAILED."""
        reason = redact(str(error)) or type(error).__name__
        try:
            ended = f"Ended after {len(self.results)} of {count(self._config.epochs, 'epoch')}: {reason}"
            failure = {"failure": reason[:5000], "failure_type": type(error).__name__}
            outcome = {"pruned": "true"} if isinstance(error, Pruned) else failure
            self._run.set_tags({**outcome, "mlflow.note.content": f"{self._sentence()} {ended}"[:5000]})
            if self.results:
                self._run.log_files(self._curves())
        finally:
            self._run.finish("KILLED" if isinstance(error, KeyboardInterrupt | Pruned) else "FAILED")

    def _sentence(self) -> str:
        config = self._config
        schedule = "a constant rate" if config.scheduler == "none" else f"the {config.scheduler} schedule"
        activation = "" if config.network.startswith(TORCHVISION) else f" with {config.activation}"
        start = f" from {self._weights.source}" if self._weights else ""
        extras = f"dropout {config.dropout}, " if config.dropout else ""
        extras += f"augmentation {config.augmentation}, " if config.augmentation != "none" else ""
        return (
            f"{config.network}{activation}{start} on {self.dataset.name} ({len(self.dataset.train):,} training "
            f"images): {config.optimizer} at {config.learning_rate} with {schedule}, batches of {config.batch_size}, "
            f"{count(config.epochs, 'epoch')}, {extras}seed {config.seed}."
        )

    def _curves(self) -> dict[str, bytes]:
        return results.curve_files(self._run.run_name, self._config, self.dataset.classes, self.results)
