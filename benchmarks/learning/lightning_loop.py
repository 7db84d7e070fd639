"""The same network, data and optimizer as report_loop.py, trained by Lightning with its MLFlowLogger."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from pathlib import Path

import report_loop
import torch
from lightning import pytorch as lightning
from lightning.pytorch.loggers import MLFlowLogger
from torch.nn.functional import cross_entropy


class Classifier(lightning.LightningModule):
    """Logs what `train` logs: loss and accuracy of each epoch, in training and on the test set."""

    def __init__(self) -> None:
        super().__init__()
        self.model = report_loop.network()
        self.epochs: list[tuple[float, float]] = []

    def training_step(self, batch: list[torch.Tensor], _: int) -> torch.Tensor:
        images, labels = batch
        logits = self.model(images)
        loss = cross_entropy(logits, labels)
        accuracy = (logits.argmax(1) == labels).float().mean()
        self.log_dict({"train_loss": loss, "train_accuracy": accuracy}, on_step=False, on_epoch=True)
        return loss

    def validation_step(self, batch: list[torch.Tensor], _: int) -> None:
        images, labels = batch
        logits = self.model(images)
        accuracy = (logits.argmax(1) == labels).float().mean()
        values = {"val_loss": cross_entropy(logits, labels), "val_accuracy": accuracy}
        self.log_dict(values, batch_size=len(labels))

    def on_fit_start(self) -> None:
        self.begun = time.perf_counter()

    def on_train_epoch_end(self) -> None:
        """Called after the epoch's validation."""
        now = time.perf_counter()
        self.epochs.append((now - self.begun, 100 * float(self.trainer.callback_metrics["val_accuracy"])))
        self.begun = now

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), lr=0.002)


def train(epochs: int, directory: Path) -> Iterator[tuple[float, float]]:
    """Seconds and test accuracy (per cent) of each epoch; the run goes to a sqlite store in `directory`."""
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    lightning.seed_everything(0, verbose=False)
    train_loader, test_loader = report_loop.loaders()
    classifier = Classifier()
    trainer = lightning.Trainer(
        max_epochs=epochs,
        accelerator="cpu",
        logger=MLFlowLogger("benchmark", tracking_uri=f"sqlite:///{directory}/lightning.db"),
        default_root_dir=directory,
        num_sanity_val_steps=0,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(classifier, train_loader, test_loader)
    yield from classifier.epochs
