"""The training loop of the 2020 report, written plainly as the report describes it: the reference of the benchmarks.

torchvision's CIFAR-10 as a list of tensors, a DataLoader with two workers, float32, Adam, the test set after each
epoch. Nothing of the package is used, so that the two sides share no more than torch.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator

import torch
from torch import nn
from torch.utils.data import DataLoader
from torchvision import datasets, transforms


def loaders() -> tuple[DataLoader, DataLoader]:
    """Of the training and the test images, batches of 32. $CIFAR_MLFLOW_DATA says where they are."""
    directory = os.environ["CIFAR_MLFLOW_DATA"]
    train, test = (list(datasets.CIFAR10(directory, part, transforms.ToTensor())) for part in (True, False))
    return (
        DataLoader(train, batch_size=32, shuffle=True, num_workers=2),
        DataLoader(test, batch_size=32, num_workers=2),
    )


def network() -> nn.Module:
    return nn.Sequential(
        *(nn.Conv2d(3, 16, 3, padding=1), nn.PReLU(), nn.BatchNorm2d(16)),
        *(nn.Conv2d(16, 32, 3, padding=1), nn.PReLU(), nn.BatchNorm2d(32), nn.MaxPool2d(2)),
        *(nn.Conv2d(32, 64, 3, padding=1), nn.PReLU(), nn.BatchNorm2d(64), nn.MaxPool2d(2)),
        *(nn.Flatten(), nn.Linear(64 * 8 * 8, 100), nn.PReLU(), nn.BatchNorm1d(100), nn.Linear(100, 10)),
    )


def train(epochs: int, seed: int = 0) -> Iterator[tuple[float, float]]:
    """Seconds and test accuracy (per cent) of each epoch."""
    train_loader, test_loader = loaders()
    torch.manual_seed(seed)
    model = network()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.002)
    loss_function = nn.CrossEntropyLoss()
    for _ in range(epochs):
        begun = time.perf_counter()
        model.train()
        for images, labels in train_loader:
            optimizer.zero_grad()
            loss = loss_function(model(images), labels)
            loss.backward()
            optimizer.step()
        model.eval()
        correct = 0
        with torch.no_grad():
            for images, labels in test_loader:
                correct += (model(images).argmax(1) == labels).sum().item()
        yield time.perf_counter() - begun, 100 * correct / len(test_loader.dataset)
