"""Tasks on the nodes of a Ray cluster: one warm actor a slot, of which Ray itself repeats nothing."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cifar_mlflow.errors import CifarMlflowError
from cifar_mlflow.text import first_line, redact
from cifar_mlflow.tuning import worker_checks
from cifar_mlflow.tuning.executors import Event, Task
from cifar_mlflow.tuning.process_executor import WRAP_UP
from cifar_mlflow.tuning.ray_cluster import carried
from cifar_mlflow.tuning.ray_worker import Begun, Looked, RayWorker

# Of Ray's actors: what has died is told to the driver, which decides whether it is repeated.
ONCE = {"max_restarts": 0, "max_task_retries": 0, "scheduling_strategy": "SPREAD"}
BEGIN_SECONDS = 300.0  # that all workers have to prepare themselves
GRACE = 3.0  # seconds, once one of them has told what is wrong, for the others to tell of the same
FIRST_SECONDS = 600.0  # without any worker, before the sweep ends: a node may come back


@dataclass(eq=False)
class Slot:
    """A worker, as the driver sees it. `call` is what it is at work on; of an idle one there is none."""

    actor: Any
    call: Any
    node: str = "a node"  # by its address, once it has told of it
    begun: bool = False
    task_id: Any = None


class RayExecutor(AbstractContextManager["RayExecutor"]):
    """`count` workers on the nodes, each with `threads` CPUs and `gpus` GPUs, of which it may have a part."""

    def __init__(
        self,
        count: int,
        threads: int,
        gpus: float,
        task: Task,
        check: Callable[[], None],
        prepare: Callable[[], None],
        log: Path,
        preload: Sequence[str] = (),
    ) -> None:
        """As of ProcessExecutor, in a process that is connected. What workers print stays on their nodes.

        `check` is called by each actor before it starts its worker, and raises CifarMlflowError for what can be seen
        at once.

        Raises:
            CifarMlflowError: workers cannot start, or have other versions, data, clocks than this process: all of it
                is told, by node.
        """
        import ray

        self._actor = ray.remote(num_cpus=threads, num_gpus=gpus, concurrency_groups={"control": 1}, **ONCE)(RayWorker)
        self._arguments = (threads, task, check, prepare, f"{log.parent.name}-{log.stem}-{{}}.log", tuple(preload))
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
        if any(slot.begun for slot in self._slots):
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

        stopping = [slot.actor.stop.options(concurrency_group="control").remote() for slot in self._slots if slot.begun]
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

        ended = ray.exceptions
        call, slot.call = slot.call, None
        try:
            said = ray.get(call)
        except (ended.RayActorError, ended.OutOfMemoryError, ended.NodeDiedError, ended.ObjectLostError) as error:
            yield from self._replace(slot, error)
            return
        except ended.RayError as error:
            cannot = "go on" if slot.begun else "start"
            raise CifarMlflowError(f"the workers cannot {cannot}: {_reason(error)}") from error
        if isinstance(said, Looked | Begun):
            if faults := self._take(slot, said):
                raise _cannot_start({slot.node: faults})
            return
        kind, payload = said
        if kind in ("unprepared", "stopped"):
            raise _cannot_start({slot.node: [str(payload)]})
        task_id = slot.task_id
        if kind != "event":
            slot.task_id = None
        yield Event(kind, task_id, payload, slot)

    def _replace(self, slot: Slot, error: Exception) -> Iterator[Event]:
        import ray

        ray.kill(slot.actor)  # it may only be out of reach, and go on
        if not slot.begun:
            self._deaths_in_preparation += 1
            if self._deaths_in_preparation > len(self._slots):
                raise _cannot_start({_node(error, slot): [_reason(error)]})
        self._slots[self._slots.index(slot)] = self._start()
        if slot.task_id is not None:
            yield Event("lost", slot.task_id, f"the worker on {slot.node} is gone ({_cause(error)})", slot)

    # --------------------------------------------------------------------------------------------- before the first

    def _start(self) -> Slot:
        actor = self._actor.remote(self._environment)
        return Slot(actor, actor.look.remote())

    def _begin(self) -> None:
        """Waits for all workers, and tells what is wrong with any of them."""
        import ray

        deadline, faults = time.monotonic() + BEGIN_SECONDS, dict[str, list[str]]()
        while any(slot.call for slot in self._slots) and time.monotonic() < deadline:
            for slot in self._said(0.5):
                call, slot.call = slot.call, None
                try:
                    told = self._take(slot, ray.get(call))
                except ray.exceptions.RayError as error:
                    slot.node, told = _node(error, slot), [_reason(error)]
                if told:
                    faults[slot.node] = [*faults.get(slot.node, []), *told]
                    deadline = min(deadline, time.monotonic() + GRACE)
        if not faults and not any(slot.begun for slot in self._slots):
            faults["the cluster"] = [f"none of {len(self._slots)} workers has begun for {BEGIN_SECONDS:.0f} seconds"]
        if faults:
            raise _cannot_start(faults)

    def _take(self, slot: Slot, said: Looked | Begun) -> list[str]:
        """What is wrong with a worker that has looked at its machine, or prepared itself; else it goes on."""
        if isinstance(said, Begun):
            if said.fault:
                return [said.fault]
            slot.begun, self._deaths_in_preparation = True, 0
            return []
        slot.node = said.node
        faults = [*worker_checks.faults(self._here, said.facts), *self._clock_faults(slot)]
        if not faults:
            slot.call = slot.actor.begin.remote(*self._arguments)
        return faults

    def _clock_faults(self, slot: Slot) -> Iterator[str]:
        import ray

        asked = time.time()
        with suppress(ray.exceptions.RayError):  # that it is gone is told by its next call
            if fault := worker_checks.clock_fault(ray.get(slot.actor.clock.remote(), timeout=30), asked):
                yield fault


def _cannot_start(faults: Mapping[str, Sequence[str]]) -> CifarMlflowError:
    lines = [f"\n  - {node}: {told}" for node, all_told in sorted(faults.items()) for told in dict.fromkeys(all_told)]
    return CifarMlflowError(f"the workers cannot start:{''.join(lines)}")


def _node(error: Exception, slot: Slot) -> str:
    """The address of the node that a worker was to begin on, or was on."""
    found = re.search(r"\bip=([^,\s)]+)", str(error))
    return found[1] if found else slot.node


def _reason(error: Exception) -> str:
    """What Ray has raised, in a line: what Python ended with there, where that was it."""
    lines = redact(str(error)).strip().splitlines()
    if "ray::" not in "".join(lines[:1]):
        return first_line(error)
    missing = re.match("(ModuleNotFound|Import)Error", lines[-1])
    return f"{lines[-1]}{'; install there what this process has' if missing else ''}"


def _cause(error: Exception) -> str:
    text = str(error)
    if type(error).__name__ == "OutOfMemoryError":
        return "Ray has ended it, since its node is short of memory"
    if "node has died" in text or "node failure" in text.lower():
        return "its node was lost"
    return "its process has ended"
