"""The functions of kernels.c, if they were compiled when this package was installed, and may run here."""

from __future__ import annotations

import ctypes
import functools
import importlib.util
import os
import shutil
import sysconfig
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import torch

SOURCE_TREE = Path(__file__).parents[3]  # if the package is not installed, but stands in a clone of its repository
LANES = 16  # of which the number of channels must be a multiple
TYPES = {torch.float32: "float32", torch.bfloat16: "bfloat16"}
_VERSION = 5
_INSTEAD = "torch's own functions train in place of the compiled ones, which takes longer"


class Block(ctypes.Structure):
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


class Convolution(ctypes.Structure):
    """As in kernels.c."""

    _fields_: ClassVar = [
        *((name, ctypes.c_int64) for name in ("images", "height", "width", "inputs", "outputs")),
        *(
            (name, ctypes.c_void_p)
            for name in (
                "input", "weight", "bias", "output", "output_gradient", "weight_gradient", "bias_gradient", "scratch",
            )
        ),
    ]  # fmt: skip


class Kernels:
    """The library of compiled functions at `path`, of which those for this processor are called."""

    def __init__(self, path: str) -> None:
        """Raises OSError or AttributeError if the library cannot be used."""
        library = ctypes.CDLL(path)
        if (
            library.version() != _VERSION
            or library.block_size() != ctypes.sizeof(Block)
            or library.convolution_size() != ctypes.sizeof(Convolution)
        ):
            raise OSError("compiled from another version of this package; install it again")
        library.openmp_address.restype = ctypes.c_void_p
        # torch names its OpenMP library nowhere; the symbol is found through the extension module that is linked to it.
        torchs = ctypes.CDLL(torch._C.__file__).omp_get_max_threads
        if library.openmp_address() != ctypes.cast(torchs, ctypes.c_void_p).value:
            raise OSError("its OpenMP library is not torch's, so that their threads would be at odds")
        self.level = _level()
        if not hasattr(library, f"block_forward_{self.level}_float32"):
            self.level = "generic"  # some compilers make no other
        library.compiler.restype = ctypes.c_char_p
        self.compiler = library.compiler().decode()
        library.block_scratch.argtypes = [ctypes.c_int64]
        library.block_scratch.restype = ctypes.c_int64
        self._library = library
        # With AMX, torch multiplies bfloat16 several times faster than any other instructions could. Nothing public in
        # torch 2.10 tells of single instructions.
        self.convolves_bfloat16 = (
            torch.cpu._is_avx512_bf16_supported()
            and not torch.cpu._is_amx_tile_supported()
            and hasattr(library, f"convolution_forward_{self.level}_bfloat16")
        )

    def block(self, direction: str, inputs: torch.Tensor, side: int, **values: Any) -> None:
        """Calls block_forward or block_backward for `inputs` (n, channels, height, width), channels last in memory.

        `values` are the other fields of the block, numbers or tensors on the CPU.
        """
        scratch = _scratch(self._library.block_scratch(inputs.shape[1]))
        block = _block(inputs.shape, side, scratch=scratch, inputs=inputs, **values)
        self._call(f"block_{direction}", inputs.dtype, block)

    def pool(self, direction: str, shape: torch.Size, dtype: torch.dtype, **values: torch.Tensor) -> None:
        """Calls pool_forward or pool_backward for inputs of `shape` (n, channels, height, width), else as `block`."""
        self._call(f"pool_{direction}", dtype, _block(shape, 2, **values))

    def convolution(self, direction: str, input: torch.Tensor, outputs: int, **values: torch.Tensor | None) -> None:
        """Calls convolution_forward or convolution_backward for `input` (n, channels, height, width).

        It is of float32, or of bfloat16 if `convolves_bfloat16`. `outputs` is the number of output channels, and
        `values` are the other fields. Images have their channels last.
        """
        images, inputs, height, width = input.shape
        convolution = Convolution(images, height, width, inputs, outputs, **_pointers(input=input, **values))
        scratch_size = self._function("convolution_scratch", input.dtype)
        scratch_size.restype = ctypes.c_int64
        scratch = _scratch(scratch_size(ctypes.byref(convolution)))
        convolution.scratch = scratch.data_ptr()
        self._call(f"convolution_{direction}", input.dtype, convolution)

    def _call(self, name: str, dtype: torch.dtype, values: ctypes.Structure) -> None:
        self._function(name, dtype)(ctypes.byref(values))

    def _function(self, name: str, dtype: torch.dtype) -> Any:
        return getattr(self._library, f"{name}_{self.level}_{TYPES[dtype]}")


def _block(shape: torch.Size, side: int, **values: Any) -> Block:
    images, channels, height, width = shape
    return Block(images, height, width, channels, side, **_pointers(**values))


def _scratch(size: int) -> torch.Tensor:
    return torch.empty(size, dtype=torch.float32, device="cpu")


def _pointers(**values: Any) -> dict[str, Any]:
    return {name: _pointer(name, value) if isinstance(value, torch.Tensor) else value for name, value in values.items()}


def _pointer(name: str, tensor: torch.Tensor) -> int:
    """Where the numbers of `tensor` are; what is in no memory of the CPU, or has gaps, would end the process in C."""
    dense = tensor.is_contiguous() or tensor.is_contiguous(memory_format=torch.channels_last)
    if not (tensor.is_cpu and dense):
        raise ValueError(
            f"{name} must be a tensor on the CPU without gaps; it is on {tensor.device}, {tensor.stride()}"
        )
    return tensor.data_ptr()


def takes(images: torch.Tensor) -> bool:
    """Whether the functions read such images: (n, channels, height, width), on the CPU, channels last in memory."""
    return (
        type(images) is torch.Tensor  # others may have no memory
        and images.dim() == 4
        and images.is_cpu
        and images.dtype in TYPES
        and images.is_contiguous(memory_format=torch.channels_last)
    )


def differentiable_once(backward: Callable[..., Any]) -> Callable[..., Any]:
    """For the gradient of an autograd function. torch's `once_differentiable` leaves second derivatives out silently.

    Raises:
        RuntimeError: the gradient is to be differentiated (`create_graph`).
    """

    @functools.wraps(backward)
    def once(ctx: Any, *gradients: torch.Tensor) -> Any:
        if torch.is_grad_enabled():
            raise RuntimeError(
                "accelerated layers have no second derivative; train with torch's own (--accelerate none)"
            )
        return backward(ctx, *gradients)

    return once


def available() -> Kernels | None:
    """The compiled functions, or None if there are none that can be used."""
    found = _found()
    return found if isinstance(found, Kernels) else None


def fault() -> str | None:
    """What to tell the user if functions were compiled but cannot be used; None if they can, or if none were."""
    found = _found()
    return f"{found}; {_INSTEAD}" if isinstance(found, str) else None


def warning() -> str | None:
    """What to tell who trains: the fault, or that a clone of the repository runs in which nothing was compiled.

    A clone is meant to run as it is, under `mlflow run` for example. Where there is no compiler, nothing was expected.
    """
    compiler = (os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc").split()[0]
    if _found() is None and (SOURCE_TREE / "setup.py").is_file() and shutil.which(compiler):
        return f"{SOURCE_TREE} is a clone in which nothing was compiled; {_INSTEAD}"
    return fault()


@functools.cache
def _found() -> Kernels | str | None:
    path = library_path()
    try:
        return None if path is None else Kernels(path)
    except (OSError, AttributeError) as error:
        return f"{path}: {error}"


def library_path() -> str | None:
    """Where the installation has put the library; None if it had no compiler for it."""
    module = importlib.util.find_spec("cifar_mlflow.learning.compiled._kernels")
    return None if module is None else module.origin


def describe(device: torch.device) -> str:
    """Whose functions are used on `device`."""
    kernels = available() if device.type == "cpu" else None
    if kernels is None:
        return "torch"
    return f"compiled for {kernels.level}{'_bf16' if kernels.convolves_bfloat16 else ''} by {kernels.compiler}"


def _level() -> str:
    """What kernels.c calls the instructions that torch finds on this processor, or is told to keep to."""
    capability = torch.backends.cpu.get_cpu_capability()
    return "avx512" if capability.startswith("AVX512") else {"AVX2": "avx2"}.get(capability, "generic")
