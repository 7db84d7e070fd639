"""What to train on: device, precision, threads and what they are called; what is random."""

import ctypes
import os
import platform
import random
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch

from cifar_mlflow import process_state
from cifar_mlflow.config.training import TrainingConfig
from cifar_mlflow.errors import ConfigurationError
from cifar_mlflow.memory import enough_memory as enough_memory

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # of glibc's malloc.h
_KEPT_BYTES = 2**30


def choose_device(config: TrainingConfig) -> torch.device:
    """The device that `config` asks for; auto takes a CUDA GPU, then Apple's, then the processor.

    Raises ConfigurationError if the device asked for is not on this machine.
    """
    available = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if config.device == "auto":
        return torch.device(next(name for name, there in available.items() if there))
    if not available[config.device]:
        there = ", ".join(name for name, present in available.items() if present)
        raise ConfigurationError(f"--device: {config.device} is not available here (available: {there}, auto)")
    return torch.device(config.device)


def choose_precision(config: TrainingConfig, device: torch.device) -> torch.dtype:
    """The arithmetic of the training steps: bfloat16 where it was asked for, or on auto where it is fast."""
    half = has_fast_bfloat16(device) if config.precision == "auto" else config.precision == "bfloat16"
    return torch.bfloat16 if half else torch.float32


def has_fast_bfloat16(device: torch.device) -> bool:
    """True if the hardware computes in bfloat16; elsewhere torch emulates it, slower than float32."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return device.type == "cpu" and bool(torch.cpu._is_avx512_bf16_supported())


@contextmanager
def settings_kept() -> Iterator[None]:
    """torch's threads and determinism, and the random states, are after the block what they were before it.

    A network of the user's own may also draw from NumPy's and Python's.
    """
    threads, deterministic, cudnn = torch.get_num_threads(), torch.utils.deterministic, torch.backends.cudnn
    with ExitStack() as after:
        after.callback(setattr, cudnn, "benchmark", cudnn.benchmark)
        after.callback(setattr, deterministic, "fill_uninitialized_memory", deterministic.fill_uninitialized_memory)  # type: ignore[attr-defined]
        after.callback(torch.set_deterministic_debug_mode, torch.get_deterministic_debug_mode())
        after.callback(torch.set_rng_state, torch.get_rng_state())
        after.callback(np.random.set_state, np.random.get_state())
        after.callback(random.setstate, random.getstate())
        # A GPU that nobody has used yet has no state, and to ask for it would start it.
        if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
            after.callback(torch.cuda.set_rng_state_all, torch.cuda.get_rng_state_all())
        if torch.backends.mps.is_available():
            after.callback(torch.mps.set_rng_state, torch.mps.get_rng_state())
        try:
            yield
        finally:
            if torch.get_num_threads() != threads:
                torch.set_num_threads(threads)


def make_deterministic(device: torch.device) -> None:
    """Has torch take the functions that give the same bits each time, where there are any."""
    if device.type == "cuda":
        if "CUBLAS_WORKSPACE_CONFIG" not in os.environ:
            process_state.set_variable("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.backends.cudnn.benchmark = False
    # As use_deterministic_algorithms(True, warn_only=True), which also imports the compiler: 1.5 s for nothing.
    torch.set_deterministic_debug_mode("warn")
    # By default torch then also fills all new memory, a sixth of the time of a step; nothing here reads it unset.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]


def seed_all(seed: int) -> None:
    """Seeds torch's generators, and NumPy's and Python's, from which a network of the user's own may draw."""
    torch.manual_seed(seed)
    np.random.seed(seed)
    random.seed(seed)


def random_state(device: torch.device) -> dict[str, Any]:
    """How far the generators are that `seed_all` seeds: numbers, lists and tensors."""
    numpy = np.random.get_state(legacy=False)
    keys = torch.from_numpy(numpy["state"]["key"].astype(np.int64))
    state = {
        "cpu": torch.get_rng_state(),
        "numpy": {**numpy, "state": {**numpy["state"], "key": keys}},
        "python": random.getstate(),
    }
    if device.type != "cpu":
        state[device.type] = torch.get_device_module(device).get_rng_state()
    return state


def restore_random_state(state: Mapping[str, Any], device: torch.device) -> None:
    """Goes to where `random_state` was taken."""
    torch.set_rng_state(state["cpu"])
    if "numpy" in state:  # a checkpoint of an earlier version has torch's alone
        inner = state["numpy"]["state"]
        np.random.set_state({**state["numpy"], "state": {**inner, "key": inner["key"].numpy()}})
        random.setstate(state["python"])
    if device.type != "cpu":
        torch.get_device_module(device).set_rng_state(state[device.type])


def keep_freed_memory() -> None:
    """Tells the C library to keep the memory that each step frees, since the next step needs as much again.

    It does so for the whole process, and for good: only for a process that is ours alone.

    glibc else gives large blocks back, and Linux clears 3,000 pages anew in each step: about a quarter of the processor
    time of report_cnn in bfloat16. Other C libraries have no such setting, and stay as they are.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return
    mallopt(_M_TRIM_THRESHOLD, _KEPT_BYTES)
    # Before 2.35, glibc refuses more than 32 MiB here.
    mallopt(_M_MMAP_THRESHOLD, _KEPT_BYTES) or mallopt(_M_MMAP_THRESHOLD, 32 * 2**20)


def describe(device: torch.device) -> str:
    """The processor's or the GPU's name, as its maker calls it.

    A processor's is followed by its cores and by the instructions that torch uses on it: in a virtual machine the name
    alone may stand for several generations, which come to other bits.
    """
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    instructions = torch.backends.cpu.get_cpu_capability()
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
        return f"{names[0]}, {len(names)} cores, {instructions}"
    except (OSError, IndexError):
        return f"{platform.processor() or platform.machine()}, {instructions}"
