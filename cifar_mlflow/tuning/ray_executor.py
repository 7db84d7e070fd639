"""Tasks on the nodes of a Ray cluster: one warm actor a slot, of which Ray itself repeats nothing."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cifar_mlflow.errors import CifarMlflowError
from cifar_mlflow.text import count, first_line, redact
from cifar_mlflow.tuning import worker_checks
from cifar_mlflow.tuning.executors import Event, Task
from cifar_mlflow.tuning.process_executor import WRAP_UP
from cifar_mlflow.tuning.ray_cluster import carried
from cifar_mlflow.tuning.ray_worker import Begun, RayWorker

# Of Ray's actors: what has died is told to the driver, which decides whether it is repeated.
ONCE = {"max_restarts": 0, "max_task_retries": 0, "scheduling_strategy": "SPREAD"}
BEGIN_SECONDS = 300.0  # that all workers have to prepare themselves
FIRST_SECONDS = 600.0  # without any worker, before the sweep ends: a node may come back


@dataclass(eq=False)
class Slot:
    """A worker, as the driver sees it. `call` is what it is at work on; of an idle one there is none."""

    actor: Any
    call: Any
    node: str | None = None  # None: it has not begun yet
    task_id: Any = None


class RayExecutor(AbstractContextManager["RayExecutor"]):
    """`count` workers on the nodes, each with `threads` CPUs and `gpus` GPUs, of which it may have a part."""

    def __init__(
        self,
        count: int,
        threads: int,
        gpus: float,
        task: Task,
        prepare: Callable[[], None],
        log: Path,
        preload: Sequence[str] = (),
    ) -> None:
        """As of ProcessExecutor, in a process that is connected. What workers print stays on their nodes.

        Raises:
            CifarMlflowError: workers cannot start, or have other versions, data, clocks than this process: all of it
                is told, by node.
        """
        import ray

        self._actor = ray.remote(num_cpus=threads, num_gpus=gpus, concurrency_groups={"control": 1}, **ONCE)(RayWorker)
        self._arguments = (threads, task, prepare, f"{log.parent.name}-{log.stem}-{{}}.log", tuple(preload))
        self._environment: Mapping[str, str] = carried()
        self._here = worker_checks.facts()
        self._deaths_in_preparation = 0
        self._slots: list[Slot] = []
        try:
            self._slots += [self._start() for _ in range(count)]
            self._begin()
        except BaseException:
            self.__exit__()
            raise
        self._served = time.monotonic()

    @property
    def idle(self) -> int:
        return sum(slot.call is None for slot in self._slots)

    def submit(self, task_id: Any, argument: Any) -> None:
        slot = next(slot for slot in self._slots if slot.call is None)
        slot.task_id, slot.call = task_id, slot.actor.run.remote(argument)

    def events(self, timeout: float) -> Iterator[Event]:
        for slot in self._said(timeout):
            yield from self._read(slot)
        if any(slot.node for slot in self._slots):
            self._served = time.monotonic()
        elif time.monotonic() - self._served > FIRST_SECONDS:
            raise CifarMlflowError(
                f"no node of the cluster has had room for a worker for {FIRST_SECONDS / 60:.0f} minutes; the same "
                "command goes on from here"
            )

    def answer(self, event: Event, go_on: bool) -> None:
        event.worker.call = event.worker.actor.go_on.remote(go_on)

    def __exit__(self, *ending: object) -> None:
        """Ends all workers: each closes its run before its actor ends."""
        import ray

        stopping = [slot.actor.stop.options(concurrency_group="control").remote() for slot in self._slots if slot.node]
        if stopping:
            ray.wait(stopping, num_returns=len(stopping), timeout=WRAP_UP + 5)
        for slot in self._slots:
            ray.kill(slot.actor)
        self._slots.clear()

    # ------------------------------------------------------------------------------------------------- what is said

    def _said(self, timeout: float) -> list[Slot]:
        """The slots whose call has come to an end, after a wait of at most `timeout` seconds for the first."""
        import ray

        called = {slot.call: slot for slot in self._slots if slot.call is not None}
        if not called:
            time.sleep(timeout)
            return []
        calls = list(called)
        if not ray.wait(calls, timeout=timeout)[0]:
            return []
        return [called[call] for call in ray.wait(calls, num_returns=len(calls), timeout=0)[0]]

    def _read(self, slot: Slot) -> Iterator[Event]:
        import ray

        call, slot.call = slot.call, None
        try:
            said = ray.get(call)
        except ray.exceptions.RayActorError as error:
            yield from self._replace(slot, error)
            return
        except ray.exceptions.RayError as error:
            raise CifarMlflowError(f"the workers cannot start: {redact(first_line(error))}") from error
        if isinstance(said, Begun):
            if faults := self._faults(said):
                raise _cannot_start({said.node: faults})
            slot.node, self._deaths_in_preparation = said.node, 0
            return
        kind, payload = said
        if kind in ("unprepared", "stopped"):
            raise CifarMlflowError(f"the workers cannot start: {slot.node}: {payload}")
        task_id = slot.task_id
        if kind != "event":
            slot.task_id = None
        yield Event(kind, task_id, payload, slot)

    def _replace(self, slot: Slot, error: Exception) -> Iterator[Event]:
        if slot.node is None:
            self._deaths_in_preparation += 1
            if self._deaths_in_preparation > len(self._slots):
                raise CifarMlflowError(f"the workers cannot start ({redact(first_line(error))})")
        self._slots[self._slots.index(slot)] = self._start()
        if slot.task_id is not None:
            yield Event("lost", slot.task_id, f"the worker on {slot.node} is gone ({_cause(error)})", slot)

    # --------------------------------------------------------------------------------------------- before the first

    def _start(self) -> Slot:
        actor = self._actor.remote(self._environment)
        return Slot(actor, actor.begin.remote(*self._arguments))

    def _begin(self) -> None:
        """Waits for all workers, and tells all that is wrong with any of them."""
        import ray

        deadline, faults = time.monotonic() + BEGIN_SECONDS, dict[str, list[str]]()
        while missing := [slot for slot in self._slots if slot.node is None and slot.call is not None]:
            if time.monotonic() > deadline:
                if faults or len(missing) == len(self._slots):
                    faults["the cluster"] = [
                        f"{count(len(missing), 'worker')} not begun after {BEGIN_SECONDS:.0f} seconds"
                    ]
                break
            for slot in self._said(1.0):
                try:
                    begun = ray.get(slot.call)
                except ray.exceptions.RayError as error:
                    slot.call = None
                    faults.setdefault("a node", []).append(redact(first_line(error)))
                    continue
                slot.call = None
                if told := self._faults(begun):
                    faults[begun.node] = [*faults.get(begun.node, []), *told]
                else:
                    slot.node = begun.node
        for node, fault in self._clock_faults():
            faults[node] = [*faults.get(node, []), fault]
        if faults:
            raise _cannot_start(faults)

    def _faults(self, begun: Begun) -> list[str]:
        return [*worker_checks.faults(self._here, begun.facts), *([begun.fault] if begun.fault else [])]

    def _clock_faults(self) -> Iterator[tuple[str, str]]:
        import ray

        of_node = {slot.node: slot for slot in self._slots if slot.node}
        for node, slot in of_node.items():
            asked = time.time()
            try:
                there = ray.get(slot.actor.clock.options(concurrency_group="control").remote(), timeout=30)
            except ray.exceptions.RayError:
                continue  # that it is gone is told by its next call
            if node and (fault := worker_checks.clock_fault(there, asked)):
                yield node, fault


def _cannot_start(faults: Mapping[str, Sequence[str]]) -> CifarMlflowError:
    lines = [f"\n  - {node}: {told}" for node, all_told in sorted(faults.items()) for told in dict.fromkeys(all_told)]
    return CifarMlflowError(f"the workers cannot start:{''.join(lines)}")


def _cause(error: Exception) -> str:
    text = str(error)
    if "node has died" in text or "node failure" in text.lower():
        return "its node was lost"
    return "its process has ended"
