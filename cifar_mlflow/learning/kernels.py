"""The functions of kernels.c, if they were compiled when this package was installed, and may run here."""

from __future__ import annotations

import ctypes
import functools
import importlib.util
from typing import Any, ClassVar

import torch

LANES = 16  # of which the number of channels must be a multiple
TYPES = {torch.float32: "float32", torch.bfloat16: "bfloat16"}
_VERSION = 2


class _Block(ctypes.Structure):
    """As in kernels.c."""

    _fields_: ClassVar = [
        *((name, ctypes.c_int64) for name in ("images", "height", "width", "channels", "side")),
        *((name, ctypes.c_float) for name in ("momentum", "epsilon")),
        *(
            (name, ctypes.c_void_p)
            for name in (
                "inputs", "slope", "kept", "weight", "bias", "running_mean", "running_variance", "means", "inverses",
                "outputs", "places", "gradients", "input_gradients", "slope_gradient", "weight_gradients",
                "bias_gradients", "scratch",
            )
        ),
    ]  # fmt: skip


class Kernels:
    """The library of compiled functions at `path`, of which `run` calls those for this processor."""

    def __init__(self, path: str) -> None:
        """Raises OSError or AttributeError if the library cannot be used."""
        library = ctypes.CDLL(path)
        if library.version() != _VERSION or library.block_size() != ctypes.sizeof(_Block):
            raise OSError("compiled from another version of this package; install it again")
        library.openmp_address.restype = ctypes.c_void_p
        torchs = ctypes.CDLL(torch._C.__file__).omp_get_max_threads
        if library.openmp_address() != ctypes.cast(torchs, ctypes.c_void_p).value:
            raise OSError("its OpenMP library is not torch's, so that their threads would be at odds")
        self.level = _level()
        if not hasattr(library, f"block_forward_{self.level}_float32"):
            self.level = "generic"  # some compilers make no other
        self._scratch_size = library.scratch_size
        self._scratch_size.argtypes, self._scratch_size.restype = [ctypes.c_int64], ctypes.c_int64
        self._functions = {}
        for direction in ("forward", "backward"):
            for dtype, called in TYPES.items():
                function = getattr(library, f"block_{direction}_{self.level}_{called}")
                function.argtypes, function.restype = [ctypes.POINTER(_Block)], None
                self._functions[direction, dtype] = function

    def run(self, direction: str, inputs: torch.Tensor, side: int, **values: Any) -> None:
        """Calls block_forward or block_backward for `inputs` (n, channels, height, width), channels last in memory.

        `values` are the other fields of the block, numbers or tensors on the CPU.
        """
        images, channels, height, width = inputs.shape
        tensors = {**values, "inputs": inputs, "scratch": torch.empty(self._scratch_size(channels))}
        fields = {
            name: value.data_ptr() if isinstance(value, torch.Tensor) else value for name, value in tensors.items()
        }
        self._functions[direction, inputs.dtype](_Block(images, height, width, channels, side, **fields))


def available() -> Kernels | None:
    """The compiled functions, or None if there are none that can be used."""
    found = _found()
    return found if isinstance(found, Kernels) else None


def fault() -> str | None:
    """Why functions that were compiled cannot be used; None if they can, or if none were."""
    found = _found()
    return found if isinstance(found, str) else None


@functools.cache
def _found() -> Kernels | str | None:
    path = library_path()
    try:
        return None if path is None else Kernels(path)
    except (OSError, AttributeError) as error:
        return f"{path}: {error}"


def library_path() -> str | None:
    """Where the installation has put the library; None if it had no compiler for it."""
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
