"""From a trained network to one that stands alone: uint8 images in, class probabilities out, on the CPU."""

import copy
from collections.abc import Mapping
from importlib.metadata import version

import torch
from torch import nn

from cifar_mlflow.learning import compiled
from cifar_mlflow.learning.networks.preprocessing import Preprocessing


class Classifier(nn.Module):
    """Preprocessing, network and softmax in one: uint8 (n, height, width, channels) to float32 (n, classes)."""

    def __init__(self, preprocessing: Preprocessing, network: nn.Module) -> None:
        super().__init__()
        self.preprocessing = preprocessing
        self.network = network

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        probabilities: torch.Tensor = self.network(self.preprocessing(pixels)).float().softmax(1)
        return probabilities


def classifier(preprocessing: Preprocessing, network: nn.Module, weights: Mapping[str, torch.Tensor]) -> Classifier:
    """A copy of `network` with `weights`, in evaluation mode on the CPU, ready for torch.export."""
    network = copy.deepcopy(network).cpu()
    compiled.restore(network)
    network.load_state_dict(dict(weights))
    exportable = Classifier(copy.deepcopy(preprocessing).cpu(), network).eval()
    for parameter in exportable.parameters():
        parameter.requires_grad_(False)
        parameter.data = parameter.data.contiguous()  # torch.export warns of weights in channels_last order
    return exportable


def requirements() -> list[str]:
    """What a machine needs to load the exported model: not this package."""
    return [f"torch=={version('torch').split('+')[0]}", f"mlflow=={version('mlflow')}", f"numpy=={version('numpy')}"]
