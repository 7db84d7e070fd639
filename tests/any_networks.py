"""Networks as people write them, for --network any_networks:NAME; what is refused of them stands in REFUSED."""

import functools
import random

import numpy as np
import torch
from torch import nn
from torch.nn import functional
from torch.nn.utils import parametrizations

WIDTH = 8


class Small(nn.Module):
    """A convolution, what `between` makes of its output, and a linear layer."""

    def __init__(self, classes, config, wrapped=lambda layer: layer):
        super().__init__()
        _, _, channels = config.image_shape
        self.convolution = wrapped(nn.Conv2d(channels, WIDTH, 3, padding=1))
        self.norm = nn.BatchNorm2d(WIDTH)
        self.pool = nn.AdaptiveAvgPool2d(2)
        self.head = nn.Linear(4 * WIDTH, classes)

    def between(self, features):
        return features.flatten(1)

    def forward(self, images):
        return self.head(self.between(self.pool(functional.relu(self.norm(self.convolution(images))))))


class view(Small):
    def between(self, features):
        return features.view(features.size(0), -1)


class view_of_all(Small):
    """LeNet's commonest line."""

    def between(self, features):
        return features.view(-1, 4 * WIDTH)


class reshape(Small):
    def between(self, features):
        return features.reshape(features.shape[0], -1)


class functional_dropout(Small):
    def between(self, features):
        return functional.dropout(features, 0.3, training=self.training).flatten(1)


class dropout_always(Small):
    """Of which torch.nn.functional.dropout makes a network that is random in evaluation, too."""

    def between(self, features):
        return functional.dropout(features, 0.3).flatten(1)


weight_norm = functools.partial(Small, wrapped=nn.utils.weight_norm)
weight_norm_parametrized = functools.partial(Small, wrapped=parametrizations.weight_norm)
spectral_norm = functools.partial(Small, wrapped=nn.utils.spectral_norm)
spectral_norm_parametrized = functools.partial(Small, wrapped=parametrizations.spectral_norm)


class kept_activation(Small):
    def between(self, features):
        self.features = features
        self.all = [features, {"last": features}]
        return features.flatten(1)


def lazy_layers(classes, config):
    return nn.Sequential(nn.LazyConv2d(WIDTH, 3), nn.LazyBatchNorm2d(), nn.ReLU(), nn.Flatten(), nn.LazyLinear(classes))


class shared_weights(Small):
    def __init__(self, classes, config):
        super().__init__(classes, config)
        self.first = self.second = nn.Linear(4 * WIDTH, 4 * WIDTH)
        self.third = nn.Linear(4 * WIDTH, 4 * WIDTH)
        self.third.weight = self.first.weight

    def between(self, features):
        return self.third(self.second(self.first(features.flatten(1)).relu()).relu())


class frozen_backbone(Small):
    """Its normalization stays in evaluation mode."""

    def __init__(self, classes, config):
        super().__init__(classes, config)
        for layer in (self.convolution, self.norm):
            layer.requires_grad_(False)

    def train(self, mode=True):
        super().train(mode)
        self.norm.eval()
        return self


class module_list(Small):
    def __init__(self, classes, config):
        super().__init__(classes, config)
        self.layers = nn.ModuleList([nn.Linear(4 * WIDTH, 4 * WIDTH) for _ in range(3)])

    def between(self, features):
        features = features.flatten(1)
        for layer in self.layers:
            features = features + layer(features).relu()
        return features


class auxiliary_head(Small):
    def __init__(self, classes, config):
        super().__init__(classes, config)
        self.auxiliary = nn.Linear(4 * WIDTH, classes)

    def forward(self, images):
        features = self.between(self.pool(self.convolution(images).relu()))
        return (self.head(features), self.auxiliary(features)) if self.training else self.head(features)


class drawing(Small):
    """Drops whole images' features at random: by Python's numbers and NumPy's, as people do in stochastic depth."""

    def between(self, features):
        if self.training and (random.random() < 0.5) != (np.random.rand() < np.random.normal(0.5)):
            features = features * 0.5
        return features.flatten(1)


class made_in_forward(Small):
    def between(self, features):
        if not hasattr(self, "extra"):
            self.extra = nn.Linear(4 * WIDTH, 4 * WIDTH)
        return self.extra(features.flatten(1)).relu()


IDIOMS = (
    "view", "view_of_all", "reshape", "functional_dropout", "weight_norm", "weight_norm_parametrized", "spectral_norm",
    "spectral_norm_parametrized", "kept_activation", "lazy_layers", "shared_weights", "frozen_backbone", "module_list",
    "auxiliary_head", "drawing", "made_in_forward",
)  # fmt: skip


class branch(Small):
    def between(self, features):
        if features.mean() > 0:
            features = features * 2
        return features.flatten(1)


class number(Small):
    def between(self, features):
        scale = float(features.detach().numpy().max())
        return features.flatten(1) / (1 + scale)


class fixed_number_of_images(Small):
    """torch.export sees a number in len(x), as in int(x.size(0)), and not the images' own."""

    def between(self, features):
        return features.reshape(len(features), -1)


class squeezed(Small):
    def forward(self, images):
        return super().forward(images).squeeze()


class greedy(Small):
    """Takes more memory than there is, of a processor, for more than three images."""

    def between(self, features):
        if self.training and features.shape[0] > 3:
            torch.empty(2**50)
        return features.flatten(1)


class fails_in_training(Small):
    def between(self, features):
        if self.training:
            raise ValueError("not ready")
        return features.flatten(1)


class dictionary_in_training(Small):
    def forward(self, images):
        logits = super().forward(images)
        return {"logits": logits} if self.training else logits


class normalized_alone(Small):
    """Batch normalization of a vector, which a batch of one image cannot have."""

    def __init__(self, classes, config):
        super().__init__(classes, config)
        self.vector_norm = nn.BatchNorm1d(4 * WIDTH)

    def between(self, features):
        return self.vector_norm(features.flatten(1))


def nothing_to_train(classes, config):
    return Small(classes, config).requires_grad_(False)


def scripted(classes, config):
    return torch.jit.script(nn.Sequential(nn.Conv2d(3, classes, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten()))


def scripted_in_part(classes, config):
    return nn.Sequential(scripted(classes, config), nn.Linear(classes, classes))


class holds_a_file(Small):
    def __init__(self, classes, config):
        super().__init__(classes, config)
        self.log = open(__file__)  # noqa: SIM115


class more_state(Small):
    def get_extra_state(self):
        return {"calls": 1}

    def set_extra_state(self, state):
        pass


def leaves(classes, config):
    raise SystemExit(3)


# What is said of each; the last words are the place in this file, if there is one.
REFUSED = {
    "branch": "no model to be served can be exported from it: ValueError: what it does depends on what it computes",
    "number": "no model to be served can be exported from it: RuntimeError: .numpy() is not supported",
    "fixed_number_of_images": "can be exported from it: ValueError: it fixes the number of images",
    "squeezed": "for 1 images it gives (3,) instead of logits of shape (1, 3)",
    "fails_in_training": "it fails in a training step: ValueError: not ready",
    "dictionary_in_training": "it fails in a training step: TypeError",
    "nothing_to_train": "it has no parameter to train",
    "scripted": "it holds a scripted module (torch.jit)",
    "scripted_in_part": "it holds a scripted module (torch.jit)",
    "holds_a_file": "its trained weights cannot be used: TypeError: cannot pickle '_io.TextIOWrapper' object",
    "more_state": "cannot be",
    "leaves": "it fails on images of (8, 8, 3): SystemExit: 3",
    "imgs": "has no attribute 'imgs'",
}
PLACES = ("branch", "number", "fails_in_training", "leaves")


def _torchvision(name, **options):
    def build(classes, config):
        from torchvision import models

        return getattr(models, name)(num_classes=classes, **options)

    return build


# The smallest images that each takes, in pixels a side.
TORCHVISION = {
    "alexnet": 63, "vgg11": 32, "resnet18": 16, "googlenet": 32, "inception_v3": 75, "mobilenet_v3_small": 32,
    "shufflenet_v2_x0_5": 32, "squeezenet1_1": 32, "efficientnet_b0": 32, "densenet121": 32, "convnext_tiny": 32,
    "vit_b_16": 32,
}  # fmt: skip
OPTIONS = {
    "googlenet": {"init_weights": False},
    "inception_v3": {"init_weights": False, "aux_logits": False},
    "vit_b_16": {"image_size": 32},
}
globals().update({name: _torchvision(name, **OPTIONS.get(name, {})) for name in TORCHVISION})
