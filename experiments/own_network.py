"""A network of one's own: any function of (number of classes, configuration) that returns an nn.Module.

cifar-mlflow train --network experiments.own_network:build --dataset digits --epochs 3 --dropout 0.1
"""

from torch import nn


def build(classes, config):
    """Depthwise separable convolutions; config has every option as an attribute, and image_shape."""
    _, _, channels = config.image_shape
    layers = []
    for width in (32, 64, 128):
        layers += [
            nn.Conv2d(channels, channels, 3, padding=1, groups=channels),
            nn.Conv2d(channels, width, 1),
            nn.BatchNorm2d(width),
            nn.ReLU(),
            nn.MaxPool2d(2),
        ]
        channels = width
    return nn.Sequential(
        *layers, nn.Dropout(config.dropout), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(128, classes)
    )
