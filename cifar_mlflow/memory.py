"""What an error says of memory: every library tells in its own way that there is too little of it."""

import errno
from collections.abc import Iterator
from contextlib import contextmanager

from cifar_mlflow.errors import TrainingError
from cifar_mlflow.text import first_line

# For a processor and for Apple's GPUs, torch has no error of its own for it; so have the libraries for NVIDIA's.
_OUT_OF_MEMORY = ("can't allocate memory", "not enough memory", "out of memory", "STATUS_ALLOC_FAILED")
ASK_FOR_LESS = "memory is short: end other programs, ask for less at once, or use a machine with more of it"


def is_out_of_memory(error: BaseException) -> bool:
    """Whether the error says that memory is short, of whatever device."""
    if isinstance(error, RuntimeError):  # torch.OutOfMemoryError is one, too
        named = type(error).__name__ == "OutOfMemoryError"
        return named or any(sign in str(error) for sign in _OUT_OF_MEMORY)
    return isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno == errno.ENOMEM)


@contextmanager
def enough_memory(told: str = ASK_FOR_LESS) -> Iterator[None]:
    """Raises TrainingError if the block finds memory short; `told` says what was being done, and what to do."""
    try:
        yield
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        raise TrainingError(f"{told} ({first_line(error)})") from None
