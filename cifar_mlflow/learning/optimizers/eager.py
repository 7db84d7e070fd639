"""torch's optimizers without their provisions for torch.compile, which nothing here uses.

Those import the compiler at the first step, which takes longer than importing torch itself. The arithmetic is torch's
own, to the last bit.
"""

from __future__ import annotations

import inspect
from typing import TypeVar

import torch
from torch import optim
from torch.optim import Optimizer as Optimizer

Kind = TypeVar("Kind", bound=type[Optimizer])
# Methods that torch hides from the compiler; each wrapper imports it only to do so.
HIDDEN = ("add_param_group", "zero_grad", "state_dict", "load_state_dict")


def eager(kind: Kind) -> Kind:
    """The optimizer class `kind` without the wrappers for the compiler around its methods."""
    methods = {name: inspect.unwrap(getattr(kind, name)) for name in HIDDEN}
    # Of step's wrappers one has another use: no gradients are recorded within.
    methods["step"] = torch.no_grad()(inspect.unwrap(kind.step))
    return type(kind.__name__, (kind,), methods)  # type: ignore[return-value]


SGD = eager(optim.SGD)
Adam = eager(optim.Adam)
AdamW = eager(optim.AdamW)
Adagrad = eager(optim.Adagrad)
RMSprop = eager(optim.RMSprop)
Adamax = eager(optim.Adamax)
ASGD = eager(optim.ASGD)
