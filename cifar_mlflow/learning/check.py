"""A network of the user's own is tried before its run is made: trained, scored and exported as it will be."""

import dataclasses
import io
from contextlib import suppress
from dataclasses import dataclass

import torch

from cifar_mlflow.config.training import BUILT_IN_NETWORKS, TORCHVISION, TrainingConfig
from cifar_mlflow.errors import ConfigurationError, Diverged
from cifar_mlflow.learning import export, hardware
from cifar_mlflow.learning.data.datasets import Dataset
from cifar_mlflow.learning.networks import build, own, torchvision_models
from cifar_mlflow.learning.networks.pretrained import Pretrained
from cifar_mlflow.learning.training import Training

IMAGES = 3  # one step, or with batches of one two: the last one takes two images
TOLERANCE = 1e-4  # of the probabilities, as when a registered model is tried before its promotion


@dataclass(frozen=True)
class Checked:
    """How the network is to be trained, and what the user should know of it."""

    memory_format: torch.memory_format = torch.channels_last
    warnings: tuple[str, ...] = ()
    start: str = ""
    """What of other weights it starts from."""
    fitted: str = ""
    """What was changed to fit it to the images."""


def check(
    config: TrainingConfig, data: Dataset, pretrained: Pretrained | None = None, *, exported: bool = True
) -> Checked:
    """Tries the network on a few images of `data`, in train mode, with the device and precision of the training.

    A network that does not take images which are channels last in memory is tried in torch's usual order.
    `exported`: a model of it is to be served. Of our own networks only the building is tried.

    Raises:
        ConfigurationError: the network fails; the place in the user's file is told.
        TrainingError: memory is short.
    """
    with hardware.settings_kept(), hardware.enough_memory("memory is too short to try the network on a few images"):
        if config.network in BUILT_IN_NETWORKS and pretrained is None:
            build.build(config, len(data.classes), data.image_shape)
            return Checked()
        few = dataclasses.replace(
            data, **{name: getattr(data, name).first(IMAGES) for name in ("train", "validation", "test")}
        )
        session = Training(config, few, pretrained=pretrained)
        if config.network in BUILT_IN_NETWORKS:
            return Checked(start=session.start.told)
        is_torchvision = config.network.startswith(TORCHVISION)
        fitted = torchvision_models.fitted(session.network, data.image_shape) if is_torchvision else ""
        try:
            return Checked(warnings=_tried(session, few, exported), start=session.start.told, fitted=fitted)
        except ConfigurationError as error:
            refused = error
        session = Training(config, few, memory_format=torch.contiguous_format, pretrained=pretrained)
        told = _tried(session, few, exported)
    usual = "images and weights lie in memory in torch's usual order instead, which may be slower"
    reason = refused.faults[0].removeprefix(f"--network: {config.network}: ")
    warnings = (f"--network: {usual}, since with channels last {reason}", *told)
    return Checked(torch.contiguous_format, warnings, session.start.told, fitted)


def _tried(session: Training, data: Dataset, exported: bool) -> tuple[str, ...]:
    """What is to be warned of; ConfigurationError if something fails."""
    config = session.config
    pixels = data.train.pixels[torch.arange(IMAGES) % len(data.train)]
    with own.faults_told(config, "it cannot be trained"):
        with suppress(Diverged):  # the run is to tell of that
            next(session.epochs())
        output = session.network.train()(session.preprocessing(pixels.to(session.device)))
    told = []
    if isinstance(output, tuple | list):
        told.append(f"--network: in training it gives {len(output)} outputs; only the first, as logits, is trained")
    with own.faults_told(config, "its trained weights cannot be used"):
        model = export.classifier(session.preprocessing, session.network, session.weights())
        with torch.inference_mode():
            answers = model(pixels)
            steady = answers.allclose(model(pixels), equal_nan=True)
    if not steady:
        told.append(
            "--network: in evaluation it answers the same images otherwise each time, so its model cannot be promoted; "
            "if it calls torch.nn.functional.dropout, that needs training=self.training"
        )
    if exported:
        with own.faults_told(config, "no model to be served can be exported from it"), export.quiet():
            program = export.program(model, pixels[:2])
            torch.export.save(program, io.BytesIO())
            again = program.module()(pixels)
        if steady and not again.allclose(answers, atol=TOLERANCE, equal_nan=True):
            raise own.fault(config, "the model that is exported from it answers otherwise than the network itself")
    return tuple(told)
