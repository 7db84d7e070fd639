"""How a promotion ended, as one object, one sentence and a description in MLflow's UI."""

import json
from dataclasses import asdict, dataclass
from datetime import datetime

from cifar_mlflow.analysis import gates
from cifar_mlflow.analysis.gates import Gate, Rivals
from cifar_mlflow.tracking.reading.models import FoundModel

PROMOTED, REFUSED, ALREADY, DRY_RUN = "promoted", "refused", "already there", "dry run"


@dataclass(frozen=True)
class PromotionVerdict:
    """How a promotion ended, with all that it was decided on.

    `status` is promoted, refused, already there (the alias names this version already) or dry run (the registry was
    left as it is). `version` is None in a dry run of a model that is not registered. `rival` is the best champion
    so far, with whom the model was compared, and `rivals` McNemar's counts against it; None if there was none.
    `accuracy` (per cent) is that on the images called `on` (test, validation, or another dataset's test) with the
    digest `images`; it is None if the model was not safe to load.
    """

    name: str
    alias: str
    version: str | None
    champion: str | None
    rival: str | None
    model_uri: str
    run_id: str
    run_name: str
    status: str
    gates: tuple[Gate, ...]
    rivals: Rivals | None
    on: str
    images: str
    accuracy: float | None
    forced: str | None
    time: str
    by: str
    commit: str

    @property
    def failed(self) -> list[str]:
        """The names of the gates that failed."""
        return [gate.name for gate in self.gates if gate.passed is False]

    @property
    def sentence(self) -> str:
        """What came of it, in one line."""
        version = f"{self.name} version {self.version}" if self.version else f"{self.model_uri} as {self.name}"
        reasons = f"gate{'s' if len(self.failed) > 1 else ''} {', '.join(self.failed)} failed"
        before = f" in place of version {self.champion}" if self.champion else ", the first"
        if self.status == ALREADY:
            return f"{version} is {self.alias} already" + (f", but its {reasons}" if self.failed else "")
        if self.status == DRY_RUN:
            may = f"would be refused: {reasons}" if self.failed and not self.forced else "would be promoted"
            return f"dry run, the registry is as it was: {version} {may}"
        if self.status == REFUSED:
            return f"{version} was refused: {reasons}"
        forced = f", forced against its {reasons} ({self.forced})" if self.forced and self.failed else ""
        return f"{version} became {self.alias}{before}{forced}"

    def as_json(self) -> str:
        """Everything, with the outcome of each gate."""
        named = {f"{self.on.replace(' ', '_')}_accuracy": self.accuracy}
        return json.dumps({**asdict(self), **named, "failed": self.failed, "sentence": self.sentence}, indent=2)

    def description(self, found: FoundModel, artifact: str) -> str:
        """The version's description in MLflow's UI; `artifact` is where the verdict is at the run."""
        at = datetime.fromisoformat(self.time).strftime("%Y-%m-%d %H:%M UTC")
        return (
            f"{self.sentence} ({at}, by {self.by}, commit {self.commit[:12]}).\n\n"
            f"From the run [{self.run_name}](#/experiments/{found.experiment_id}/runs/{self.run_id}), "
            f"{found.weights} weights, trained on {found.config.dataset}; the verdict is its artifact `{artifact}`."
            f"\n\n{gates.markdown(self.gates)}"
        )
