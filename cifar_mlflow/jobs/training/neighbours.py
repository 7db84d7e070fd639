"""Other trainings on the cores, or on the GPU, that a job is about to use: it tells of them, or waits for its turn.

Each training and each sweep has a record in the state directory, and holds a lock beside it that is free when its
process is gone, whatever ended it. The records have numbers: who waits has its turn before those of higher ones.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from cifar_mlflow.config.training import TrainingConfig
from cifar_mlflow.directories import writable
from cifar_mlflow.errors import ConfigurationError
from cifar_mlflow.jobs.listener import say, warn
from cifar_mlflow.text import duration
from cifar_mlflow.tracking import processes
from cifar_mlflow.tracking.outbox import locks

PART = "neighbours"
BETWEEN_LOOKS = 0.5  # seconds, while waiting
LEAST_SECONDS = 0.5  # over which can be told how busy the cores are: the system counts in hundredths
BUSY = 0.4  # of the cores by other programs; less may be what a desktop does


@dataclass(frozen=True)
class Place:
    """What of the machine a job takes: `needs` of the `there` cores, or a GPU, which is one."""

    name: str
    needs: int
    there: int

    def __str__(self) -> str:
        return f"the {self.there} {self.name}" if self.there > 1 else f"the {self.name.removesuffix('s')}"


@dataclass(frozen=True)
class Neighbour:
    """A training or sweep, in the `place` of that name; `since` are seconds of time.time()."""

    number: int
    what: str
    place: str
    needs: int
    waits: bool
    since: float
    process: dict[str, str]

    def __str__(self) -> str:
        began = time.strftime("%H:%M", time.localtime(self.since))
        return f"{self.what} ({processes.describe(self.process)}, {'waiting ' if self.waits else ''}since {began})"


class Neighbours:
    """The neighbours of a job that is to train: `with neighbours.turn("digits-relu-seed0", place): ...`.

    Made when the job begins, since from then on it is measured how busy others keep the cores. `wait` waits for the
    job's turn; `instead` is what else can be done, with {} for a number of threads.
    """

    def __init__(self, *, wait: bool = False, instead: str = "") -> None:
        self._wait, self._instead, self._load = wait, instead, _Load()

    @contextmanager
    def turn(self, what: str, place: Place) -> Iterator[None]:
        """Has the place while the block runs: with `wait` when no other training is in the way, else at once.

        Then one line warns of those that are, or of other programs that keep the cores busy.

        Raises:
            ConfigurationError: the state directory cannot be written.
        """
        directory = writable(PART)
        with _alone(directory):
            number = max((each.number for each in _living(directory)), default=0) + 1
            lock = locks.take(_path(directory, number, "lock"))
            mine = Neighbour(number, what, place.name, place.needs, self._wait, time.time(), processes.process_tags())
            _write(directory, mine)
        try:
            self._begin(directory, mine, place)
            yield
        finally:
            with suppress(ConfigurationError), _alone(directory):
                _remove(directory, number)
                if lock is not None:
                    lock.release()

    def _begin(self, directory: Path, mine: Neighbour, place: Place) -> None:
        told: list[Neighbour] = []
        while found := self._in_the_way(directory, mine, place):
            if not self._wait:
                self._warn(found, place)
                return
            if [each.number for each in found] != [each.number for each in told]:
                say(f"waiting for {place}: first comes {_listed(found)}")
                told = found
            time.sleep(BETWEEN_LOOKS)
        if told:
            say(f"its turn has come after {duration(time.time() - mine.since)}")
        elif place.name == "cores":
            self._warn_of_load(place)

    def _in_the_way(self, directory: Path, mine: Neighbour, place: Place) -> list[Neighbour]:
        """Those because of whom the place is taken; if nobody is waited for, the record says that this job trains."""
        with _alone(directory):
            found = in_the_way(mine, _living(directory), place.there)
            if mine.waits and not found:
                _write(directory, replace(mine, waits=False, since=time.time()))
        return found

    def _warn(self, found: Sequence[Neighbour], place: Place) -> None:
        threads = max(1, place.there // (len(found) + 1))
        instead = f"{self._instead.format(threads)}, or " if self._instead and place.name == "cores" else ""
        warn(
            f"{place} {'are' if place.there > 1 else 'is'} taken by {_listed(found)}. Trainings that share them take "
            f"several times as long: {instead}start this one with --wait, which waits for its turn"
        )

    def _warn_of_load(self, place: Place) -> None:
        others = self._load.others()
        if others < BUSY * place.there or place.needs + others < place.there + BUSY:
            return
        threads = max(1, place.there - round(others))
        instead = self._instead.format(threads) if threads < place.needs else ""
        warn(
            f"other programs keep {others:.1f} of {place} busy. Threads that share a core wait for one another: "
            f"end those first{f', or {instead}' if instead else ''}"
        )


def cores() -> int:
    """The number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def place_of(config: TrainingConfig, threads: int | None = None) -> Place:
    """Where a training by `config` computes, with so many threads (default: its own).

    Raises ConfigurationError if the device is not there.
    """
    import torch

    from cifar_mlflow.learning import hardware

    device = hardware.choose_device(config).type
    if device != "cpu":
        return Place(f"GPU ({' '.join(filter(None, [device, os.environ.get('CUDA_VISIBLE_DEVICES')]))})", 1, 1)
    own = torch.get_num_threads() if config.threads == "auto" else config.threads
    return Place("cores", own if threads is None else threads, cores())


def in_the_way(mine: Neighbour, living: Sequence[Neighbour], there: int) -> list[Neighbour]:
    """Those who train or wait before `mine` in its place, who train first; none if there is room beside them."""
    found = [
        each
        for each in living
        if each.number != mine.number
        and each.place == mine.place
        and not processes.is_elsewhere(each.process)  # the directory may be on a disk that machines share
        and (not each.waits or each.number < mine.number)
    ]
    needed = mine.needs + sum(each.needs for each in found)
    return sorted(found, key=lambda each: (each.waits, each.number)) if needed > there else []


def _listed(found: Sequence[Neighbour]) -> str:
    return f"{found[0]}{f' and {len(found) - 1} more' if found[1:] else ''}"


@contextmanager
def _alone(directory: Path) -> Iterator[None]:
    """No other process reads or changes the records meanwhile."""
    from filelock import FileLock

    try:
        with FileLock(directory / "records.lock"):
            yield
    except OSError as error:
        told = f"{directory} cannot be written ({error.strerror or error}); make room there"
        raise ConfigurationError(told, "environment") from None


def _path(directory: Path, number: int, kind: str) -> Path:
    return directory / f"{number}.{kind}"


def _write(directory: Path, record: Neighbour) -> None:
    _path(directory, record.number, "json").write_text(json.dumps(asdict(record)), encoding="utf-8")


def _living(directory: Path) -> list[Neighbour]:
    """The records of processes that are there, the first first; those of others are removed."""
    found = []
    for path in directory.glob("*.json"):
        if not locks.is_locked(path.with_suffix(".lock")):
            _remove(directory, int(path.stem))
            continue
        with suppress(ValueError, TypeError):  # of another version, or written on a full disk
            found.append(Neighbour(**json.loads(path.read_text(encoding="utf-8"))))
    return sorted(found, key=lambda each: each.number)


def _remove(directory: Path, number: int) -> None:
    for kind in ("json", "lock"):
        _path(directory, number, kind).unlink(missing_ok=True)


class _Load:
    """How busy other processes keep the cores of this one, from its making on."""

    def __init__(self) -> None:
        self._began, self._own = time.monotonic(), time.process_time()
        self._busy()

    def others(self) -> float:
        """In cores; 0 if it cannot be told."""
        seconds = time.monotonic() - self._began
        if seconds < LEAST_SECONDS:
            return 0.0
        return max(0.0, self._busy() - (time.process_time() - self._own) / seconds)

    @staticmethod
    def _busy() -> float:
        """Cores in use since the last call."""
        import psutil

        try:
            percent = psutil.cpu_percent(percpu=True)
        except OSError:  # the system does not let us see
            return 0.0
        ours = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else range(len(percent))
        return sum(value for core, value in enumerate(percent) if core in ours) / 100
