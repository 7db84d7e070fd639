"""Check everything around the runs, say what is not in order, and put right what is safe to."""

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from cifar_mlflow import process_state
from cifar_mlflow.errors import CifarMlflowError
from cifar_mlflow.jobs.health import machine
from cifar_mlflow.jobs.listener import bar
from cifar_mlflow.records import Finding
from cifar_mlflow.text import redact
from cifar_mlflow.tracking import store as tracking_store
from cifar_mlflow.tracking import uris
from cifar_mlflow.tracking.reading import leftovers, team_server
from cifar_mlflow.tracking.store import Store
from cifar_mlflow.tracking.writing.recorder import mark_job


@dataclass(frozen=True)
class Result:
    """A finding of a check. `outcome` is what its fix has done, or why it could not; empty if none was tried."""

    check: str
    finding: Finding
    outcome: str = ""
    fixed: bool = False

    @property
    def is_open(self) -> bool:
        """Whether something is wrong and was not put right."""
        return self.finding.severity != "note" and not self.fixed


@dataclass(frozen=True)
class Report:
    """What was found: `well` says, by check, what is in order; `results` holds all else."""

    well: dict[str, str]
    results: tuple[Result, ...]

    @property
    def left(self) -> int:
        """How many findings are wrong and were not put right."""
        return sum(result.is_open for result in self.results)

    def as_json(self) -> str:
        found = [
            {
                "check": result.check,
                "severity": result.finding.severity,
                "text": result.finding.text,
                "remedy": result.finding.remedy,
                "fixable": result.finding.fix is not None,
                "fixed": result.fixed,
                "outcome": result.outcome,
            }
            for result in self.results
        ]
        return json.dumps({"well": self.well, "findings": found, "left": self.left}, indent=2)


@process_state.preserved()
def doctor(*, fix: bool = False) -> Report:
    """Makes every check; with `fix`, puts right in their order what can be put right without a loss.

    A store that does not answer is a finding itself; this machine is checked all the same.
    """
    well: dict[str, str] = {}
    results: list[Result] = []
    store: Store | None = None
    try:
        missing = None if os.environ.get("MLFLOW_RUN_ID") else _missing_file()
        if missing:
            finding = Finding("note", f"there is no store yet at {missing}; the first run makes it")
            results.append(Result("store", finding))
        else:
            store = tracking_store.connect()
            mark_job(store)
            well["store"] = f"{redact(store.uri)} answers, with the schema of the installed MLflow"
    except CifarMlflowError as error:
        results.append(Result("store", Finding("error", str(error), "see the message; then cifar-mlflow check")))
    checks = _checks(store)
    with bar(len(checks), "looking", " checks") as advance:
        for name, in_order, check in checks:
            found = [Result(name, finding) for finding in _findings(check)]
            # At once: what an outbox delivers changes what there is to find in the checks that follow.
            results += map(_fixed, found) if fix else found
            if all(result.finding.severity == "note" for result in found):
                well[name] = in_order
            advance(1)
    return Report(well, tuple(results))


def _checks(store: Store | None) -> list[tuple[str, str, Iterator[Finding]]]:
    """Each check's name, what is told if it finds nothing, and what it finds, which is looked for only when asked."""
    from cifar_mlflow.learning.data import cifar10

    checks = [
        # These come first: what they deliver belongs to runs and models that are looked at after.
        ("spools", "nothing waits to be delivered", machine.outboxes(store)),
        ("checkpoints", "none is left of a finished run", machine.checkpoints(store)),
        ("leftovers", "no half-written file", machine.leftovers()),
        ("room", "at least 1 GB where runs, checkpoints and data are written", machine.room(store)),
        ("packages", "Python and all packages are of the versions asked for", machine.packages()),
        ("functions", "none that was compiled is broken", machine.compiled_functions()),
        ("data", "no file of CIFAR-10 is broken", cifar10.inspect()),
    ]
    if store is None:
        return checks
    if store.uri.startswith("http"):
        alone = "it asks for a password, or only this machine reaches it; it answers to its own name alone"
        checks += [
            ("server", "its MLflow is of the version that is installed here", team_server.other_version(store)),
            ("doors", alone, team_server.open_doors(store)),
            ("clocks", "this machine's and the server's agree", team_server.clocks(store)),
            ("round trip", "a file that was sent to the server came back as it was", team_server.round_trip(store)),
        ]
    changed = leftovers.changed_model_files(store)
    return [
        *checks,
        ("runs", "none is RUNNING without its process", leftovers.left_running(store)),
        ("artifacts", "those of every experiment can be written", leftovers.unwritable_artifacts(store)),
        ("models", "each was logged completely", leftovers.incomplete_models(store)),
        ("aliases", "each is where its record says", leftovers.misplaced_aliases(store)),
        ("gc", "mlflow gc would take nothing from a model with an alias", team_server.endangered(store)),
        ("files", "those of every model with an alias are as they were logged", changed),
    ]


def _findings(check: Iterator[Finding]) -> list[Finding]:
    """What the check finds; an error of one check must not keep the others from being made."""
    found: list[Finding] = []
    try:
        found.extend(check)
    except (CifarMlflowError, OSError) as error:
        found.append(Finding("error", f"this check could not be made to its end: {redact(str(error))}"))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        text = f"what is there cannot be understood ({type(error).__name__}: {redact(str(error))})"
        found.append(Finding("error", text, "it was written by other hands, or by another version of cifar-mlflow"))
    return found


def _fixed(result: Result) -> Result:
    if result.finding.fix is None:
        return result
    try:
        return replace(result, outcome=result.finding.fix(), fixed=True)
    except (CifarMlflowError, OSError) as error:
        return replace(result, outcome=redact(str(error)))


def _missing_file() -> Path | None:
    """The file of an SQLite store that is not there yet, and that opening it would make."""
    path = uris.sqlite_file(uris.in_use())
    return path if path and not path.exists() else None
