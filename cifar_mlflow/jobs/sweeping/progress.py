"""What a person watches during a sweep: two bars on a terminal, a line a run elsewhere."""

import sys
import time
from collections import defaultdict
from collections.abc import Mapping
from typing import Any

from tqdm import tqdm

from cifar_mlflow.analysis.comparison import verdicts, wording
from cifar_mlflow.config.sweep import OBJECTIVES, SweepConfig
from cifar_mlflow.jobs.listener import SweepListener, say
from cifar_mlflow.jobs.sweeping.plan import describe
from cifar_mlflow.records import TrialOutcome
from cifar_mlflow.text import duration


class SweepProgress(SweepListener):
    """Bars for the `runs` to train, of about `epochs` each, the best configuration so far, and the time left."""

    def __init__(self, spec: SweepConfig, runs: int, epochs: int) -> None:
        self._spec, self._runs, self._ended = spec, runs, 0
        self._started = time.monotonic()
        self._values: dict[str, list[float]] = defaultdict(list)
        self._images = 0  # that each value was measured on
        shown: dict[str, Any] = {"disable": not sys.stderr.isatty(), "leave": False, "dynamic_ncols": True}
        self._run_bar = tqdm(total=runs, desc="runs", unit="run", position=0, **shown)
        self._epoch_bar = tqdm(total=runs * epochs, desc="epochs", unit="epoch", position=1, **shown)

    def close(self) -> None:
        self._epoch_bar.close()
        self._run_bar.close()

    def known(self, values: Mapping[str, Any], value: float | None, images: int = 0) -> None:
        if value is not None:
            self._values[describe(values)].append(value)
            self._images = images or self._images

    def epoch(self) -> None:
        self._epoch_bar.update()

    def run(self, values: Mapping[str, Any], what: str, outcome: TrialOutcome) -> None:
        self._ended += 1
        if outcome.status == "PRUNED":  # and with it the configuration's other seeds
            self._runs -= self._spec.repeats - 1
            self._run_bar.total = self._runs
        self.known(values, outcome.value, outcome.images)
        result = outcome.status.lower() + (f": {outcome.reason}" if outcome.reason else "")
        if outcome.value is not None:
            result = wording.number(outcome.value, self._spec.objective)
        line = f"run {self._ended:>{len(str(self._runs))}}/{self._runs}  {what}: {result}"
        line += f"; best so far: {best}" if (best := self._best()) else ""
        seconds = (self._runs - self._ended) * (time.monotonic() - self._started) / self._ended
        say(line + (f", {duration(seconds)} left" if seconds > 0 else ""))
        self._run_bar.update()
        self._run_bar.set_postfix_str(best)

    def _best(self) -> str:
        """The best configuration by its mean, among the repeated ones if there are any: a single run may be luck.

        relu: 92.31 (91.90–92.72, n=3), or what a single run allows to say; the interval is that of the comparison.
        """
        if self._spec.is_replication or not self._values:
            return ""
        sign = 1 if OBJECTIVES[self._spec.objective][1] else -1
        repeated = {name: values for name, values in self._values.items() if len(values) > 1}
        name, values = max((repeated or self._values).items(), key=lambda item: sign * sum(item[1]) / len(item[1]))
        objective = self._spec.objective
        summary = verdicts.summarized(values, objective, self._images)
        known = "n=1, no interval" if summary.n == 1 else f"{wording.interval(summary, objective)}, n={summary.n}"
        return f"{name}: {wording.number(summary.mean, objective)} ({known})"
