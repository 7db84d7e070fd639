"""The network that a configuration names, built and initialized."""

from collections.abc import Callable

from torch import nn

from cifar_mlflow.config.training import TORCHVISION, TrainingConfig
from cifar_mlflow.learning.networks import own, torchvision_models
from cifar_mlflow.learning.networks.fast import FastNetwork
from cifar_mlflow.learning.networks.report_cnn import report_cnn

NETWORKS: dict[str, Callable[..., nn.Module]] = {"report_cnn": report_cnn, "fast": FastNetwork}
ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "relu": nn.ReLU,
    "leaky_relu": nn.LeakyReLU,
    "prelu": nn.PReLU,
    "rrelu": nn.RReLU,
    "elu": nn.ELU,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
}


def build(config: TrainingConfig, classes: int, image_shape: tuple[int, int, int]) -> nn.Module:
    """A new network from (n, channels, height, width) float32 to (n, classes) logits, freshly initialized.

    `image_shape` is (height, width, channels). The weights are drawn from torch's global random state.

    Raises ConfigurationError if the network cannot be built, or not for images of this shape.
    """
    if config.network in NETWORKS:
        network = NETWORKS[config.network](config, ACTIVATIONS[config.activation], classes, image_shape)
    elif config.network.startswith(TORCHVISION):
        with own.faults_told(config, f"it cannot be built for images of {image_shape}"):
            network = torchvision_models.build(config, classes, image_shape)
        network = own.tried(config, network, classes, (*image_shape[:2], torchvision_models.CHANNELS))
    else:
        network = own.build(config, classes, image_shape)
    _initialize(network, config.weight_init)
    return network


def _initialize(network: nn.Module, scheme: str) -> None:
    """Kaiming (He et al., 2015) or Xavier (Glorot & Bengio, 2010) normal weights and zero biases."""
    if scheme == "default":
        return
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear) and layer.weight.requires_grad:
            if scheme == "kaiming":
                nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
            else:
                nn.init.xavier_normal_(layer.weight)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
