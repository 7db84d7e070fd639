"""The functions of kernels.c, if they were compiled when this package was installed, and may run here."""

from __future__ import annotations

import ctypes
import functools
import importlib.util
from pathlib import Path
from typing import Any

import torch

LANES = 16  # of which the number of elements or channels must be a multiple
TYPES = {torch.float32: "float32", torch.bfloat16: "bfloat16"}
_VERSION = 1
_POINTER, _FLOAT, _COUNT = ctypes.c_void_p, ctypes.c_float, ctypes.c_int64
_PARAMETERS: dict[str, list[Any]] = {
    "prelu_forward": [*[_POINTER] * 3, _COUNT],
    "prelu_backward": [*[_POINTER] * 5, _COUNT],
    "batch_norm_forward": [*[_POINTER] * 9, _FLOAT, _FLOAT, _COUNT, _COUNT],
    "batch_norm_backward": [*[_POINTER] * 9, _COUNT, _COUNT],
    "max_pool_forward": [*[_POINTER] * 3, *[_COUNT] * 3],
    "max_pool_backward": [*[_POINTER] * 3, *[_COUNT] * 3],
}


class Kernels:
    """The library of compiled functions at `path`, of which `run` calls those for this processor."""

    def __init__(self, path: str) -> None:
        """Raises OSError or AttributeError if the library cannot be used."""
        loaded = _openmp_libraries()
        library = ctypes.CDLL(path)
        if library.version() != _VERSION:
            raise OSError(f"{path} was compiled from another version of kernels.c")
        if _openmp_libraries() != loaded:
            raise OSError(f"{path} takes another OpenMP library than torch, and their threads would be at odds")
        self.level = _level()
        if not hasattr(library, f"prelu_forward_{self.level}_float32"):
            self.level = "generic"  # some compilers make no other
        self.scratch_size = library.scratch_size
        self.scratch_size.argtypes, self.scratch_size.restype = [_COUNT], _COUNT
        self._functions = {}
        for name, parameters in _PARAMETERS.items():
            for dtype, called in TYPES.items():
                function = getattr(library, f"{name}_{self.level}_{called}")
                function.argtypes, function.restype = parameters, None
                self._functions[name, dtype] = function

    def run(self, name: str, elements: torch.dtype, *arguments: torch.Tensor | float) -> None:
        """Tensors are passed by their addresses, in the order of the C function's parameters."""
        values = [argument.data_ptr() if isinstance(argument, torch.Tensor) else argument for argument in arguments]
        self._functions[name, elements](*values)


@functools.cache
def available() -> Kernels | None:
    """The compiled functions, or None if there are none that can be used."""
    path = library_path()
    try:
        return None if path is None else Kernels(path)
    except (OSError, AttributeError):
        return None


def library_path() -> str | None:
    """Where the installation has put the library; None if it was installed without a C compiler."""
    module = importlib.util.find_spec("cifar_mlflow.learning._kernels")
    return None if module is None else module.origin


def describe(device: torch.device) -> str:
    """Whose functions train on `device`: their results differ in the last bits."""
    kernels = available() if device.type == "cpu" else None
    return "torch" if kernels is None else f"compiled for {kernels.level}"


def _level() -> str:
    """What kernels.c calls the instructions that torch finds on this processor, or is told to keep to."""
    capability = torch.backends.cpu.get_cpu_capability()
    return "avx512" if capability.startswith("AVX512") else {"AVX2": "avx2"}.get(capability, "generic")


def _openmp_libraries() -> set[str]:
    """Paths of those that this process has loaded; empty where Linux does not tell."""
    try:
        lines = Path("/proc/self/maps").read_text(encoding="utf-8").splitlines()
    except OSError:
        return set()
    paths = {line.split(maxsplit=5)[-1] for line in lines}
    return {path for path in paths if Path(path).name.startswith(("libgomp", "libomp", "libiomp"))}
