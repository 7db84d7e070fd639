"""The recorder of a run that is taken up again, of which the store has a part already."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from cifar_mlflow.tracking.outbox.spooled_recorder import SpooledRecorder
from cifar_mlflow.tracking.writing.model_files import ExportedModel


@dataclass(frozen=True)
class Recorded:
    """What a run has in the store: the steps of each metric, its complete models by their weights, its dataset."""

    steps: Mapping[str, frozenset[int]] = field(default_factory=dict)
    models: Mapping[str, str] = field(default_factory=dict)
    dataset: bool = False


class ResumedRecorder(SpooledRecorder):
    """Leaves out what is `recorded`, so that no metric gets a second value at a step, and no model a double."""

    recorded = Recorded()

    def log_metrics(self, metrics: Mapping[str, float], step: int = 0) -> None:
        if lacking := self._lacking(metrics, step):
            super().log_metrics(lacking, step)

    def log_dataset(self, name: str, digest: str, source: str, profile: Mapping[str, int], context: str) -> None:
        if not self.recorded.dataset:
            super().log_dataset(name, digest, source, profile, context)

    def log_model(self, exported: ExportedModel, metrics: Mapping[str, float]) -> None:
        if exported.weights in self.recorded.models:
            self.log_metrics(metrics)
        else:
            super().log_model(exported, self._lacking(metrics))

    def log_same_models(self, models: Sequence[tuple[ExportedModel, Mapping[str, float]]]) -> None:
        if self.recorded.models:
            for exported, metrics in models:
                self.log_model(exported, metrics)
        else:
            super().log_same_models([(exported, self._lacking(metrics)) for exported, metrics in models])

    def _lacking(self, metrics: Mapping[str, float], step: int = 0) -> dict[str, float]:
        return {name: value for name, value in metrics.items() if step not in self.recorded.steps.get(name, ())}
