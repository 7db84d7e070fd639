"""What the functions of the Python interface return, where a job's own result is not enough."""

from __future__ import annotations

import html
import io
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cifar_mlflow.config.training import TrainingConfig
from cifar_mlflow.text import count

if TYPE_CHECKING:
    import pandas as pd

    from cifar_mlflow.analysis.comparison.verdicts import Comparison as Judged
    from cifar_mlflow.jobs.sweeping.report import SweepOutcome, Winner
    from cifar_mlflow.learning.training import EpochResult

HISTORY = (
    "train_loss", "train_accuracy", "held_out_loss", "held_out_accuracy", "held_out_balanced_accuracy",
    "learning_rate", "images_per_second",
)  # fmt: skip


@dataclass(frozen=True, repr=False)
class Run:
    """A run that was trained. Accuracies are per cent, of the split that `held_out` names; NaN if not scored.

    `url` is its page in MLflow's UI if the store is a server. `waiting` writes have not reached the store yet (`sync`
    delivers them), as all of a run that was trained offline. `epochs` are those that were trained by this call.
    """

    id: str
    name: str
    url: str | None
    config: TrainingConfig
    experiment: str
    held_out: str
    final_accuracy: float
    best_accuracy: float
    best_epoch: int
    waiting: int
    epochs: tuple[EpochResult, ...]

    def __repr__(self) -> str:
        best = f", best {self.best_accuracy:.2f}% at epoch {self.best_epoch}" if self.held_out != "test" else ""
        return f"<Run {self.id[:8]} {self.name}: {self.held_out} accuracy {self.final_accuracy:.2f}%{best}>"

    @property
    def history(self) -> pd.DataFrame:
        """A row an epoch that this call has trained, with the epoch as its index."""
        import pandas as pd

        rows = [{name: getattr(epoch, name) for name in HISTORY} for epoch in self.epochs]
        index = pd.Index([epoch.epoch for epoch in self.epochs], name="epoch")
        return pd.DataFrame(rows, index=index, columns=list(HISTORY))


@dataclass(frozen=True, repr=False)
class Comparison:
    """Which configurations the evidence tells apart; printed as `cifar-mlflow compare` prints it.

    `judged` has everything: rows with their runs, values, intervals and verdicts.
    """

    judged: Judged
    title: str

    def __repr__(self) -> str:
        return self._rendered("table")

    def to_frame(self) -> pd.DataFrame:
        """The rows of `compare --format csv`: one a configuration, best first."""
        import pandas as pd

        return pd.read_csv(io.StringIO(self._rendered("csv")))

    def to_html(self) -> str:
        """The page of `compare --format html`: figures, verdicts and links, in one file."""
        return self._rendered("html")

    def _repr_html_(self) -> str:
        page = html.escape(self.to_html(), quote=True)
        return f'<iframe srcdoc="{page}" style="width: 100%; height: 640px; border: 0"></iframe>'

    def _rendered(self, form: str) -> str:
        from cifar_mlflow.jobs.compare import render

        return render(self.judged, form, self.title)


@dataclass(frozen=True, repr=False)
class Sweep:
    """What a sweep came to: `outcome` counts its runs, those that failed or were pruned, and what a budget has left."""

    outcome: SweepOutcome
    comparison: Comparison

    def __repr__(self) -> str:
        return f"<Sweep {self.id[:8]} {self.name}: {count(len(self.comparison.judged.rows), 'configuration')}>"

    @property
    def id(self) -> str:
        """The run id of its parent, by which and by its name it is compared and promoted."""
        return self.outcome.run_id

    @property
    def name(self) -> str:
        return self.comparison.title

    @property
    def url(self) -> str:
        """Its leaderboard in MLflow's UI."""
        return self.outcome.leaderboard

    @property
    def winner(self) -> Winner | None:
        """None in a replication, and if nothing finished."""
        return self.outcome.winner

    @property
    def table(self) -> pd.DataFrame:
        """As `Comparison.to_frame`."""
        return self.comparison.to_frame()


def name_of(what: Any) -> Any:
    """The word by which a job is told of a run or a sweep; anything else as it is."""
    return what.id if isinstance(what, Run | Sweep) else what
