"""A training on an Apple GPU, as far as a machine without one can tell: float64 is refused there."""

import math
from contextlib import contextmanager

import pytest
import torch
from torch.overrides import TorchFunctionMode

from cifar_mlflow.config.rules import resolve
from cifar_mlflow.learning import compiled, export
from cifar_mlflow.learning.data import datasets
from cifar_mlflow.learning.training import Training

MPS = torch.device("mps")


class PretendedMps(TorchFunctionMode):
    """Tensors that are sent to the device mps, or made there, stay on the CPU, but are told of as on mps.

    What is made of them is on mps too, and none of it may be float64.
    """

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = dict(kwargs or {})
        if func == torch._C._nn._parse_to:  # which nn.Module.to only asks what its arguments mean
            return func(*args, **kwargs)
        words = [*args, *kwargs.values()]
        sent = any(isinstance(word, torch.device) and word == MPS for word in words)
        there = any(is_there(word) for word in flat(words))
        if func == torch.Tensor.device.__get__ and there:
            return MPS
        if func == torch.Tensor.is_cpu.__get__ and there:
            return False
        replaced = [torch.device("cpu") if isinstance(word, torch.device) else word for word in args]
        kwargs = {name: torch.device("cpu") if name == "device" and word else word for name, word in kwargs.items()}
        result = func(*replaced, **kwargs)
        if func == torch.Tensor.cpu:
            return result.clone()  # not the tensor itself, which is on mps
        if func == torch.Tensor.data.__set__ and there:
            args[0].pretended = True
        if isinstance(result, torch.Tensor) and (there or sent):
            if result.dtype == torch.float64:
                raise TypeError("Cannot convert a MPS Tensor to float64 dtype as the MPS framework doesn't support it")
            result.pretended = True
        return result


def flat(words):
    for word in words:
        yield from flat(word) if isinstance(word, list | tuple) else [word]


def is_there(word):
    return isinstance(word, torch.Tensor) and getattr(word, "pretended", False)


@contextmanager
def pretended(monkeypatch):
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    with PretendedMps():
        yield


def test_the_pretence_refuses_float64(monkeypatch):
    with pretended(monkeypatch):
        there = torch.zeros(2, device=MPS) + torch.ones(2).to(MPS)
        assert there.device == (there[0] * 2).device == MPS
        assert there.cpu().double().device.type == "cpu"
        for refused in (there.double, lambda: there.to(torch.float64), lambda: torch.zeros(1).double().to(MPS)):
            with pytest.raises(TypeError, match="float64"):
                refused()


@pytest.mark.parametrize(
    "values", [{"normalize": True}, {"network": "fast", "widths": "8,8,8", "averaging": "ema"}, {"optimizer": "muon"}]
)
def test_a_training_ends_and_its_model_is_torchs(write_npz, monkeypatch, values):
    path = write_npz(size=12)
    config = resolve({"dataset": str(path), "epochs": 2, "batch_size": 16, "device": "mps", **values})
    data = datasets.load(config)
    with pretended(monkeypatch):
        training = Training(config, data)
        assert training.device == MPS
        assert {parameter.device for parameter in training.network.parameters()} == {MPS}
        assert not {type(layer) for layer in training.network.modules()} & set(compiled.PLAIN)
        results = list(training.epochs())
        weights = training.weights()
    assert [math.isfinite(result.train_loss + result.held_out_loss) for result in results] == [True, True]
    model = export.classifier(training.preprocessing, training.network, weights)
    assert model(data.test.pixels).shape == (30, 3)
