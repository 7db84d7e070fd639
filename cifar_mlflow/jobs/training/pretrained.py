"""The weights that a training starts from, wherever they are: torchvision's, a file's, or a model's of the store."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

from cifar_mlflow.config.paths import is_path
from cifar_mlflow.config.training import TrainingConfig
from cifar_mlflow.errors import ConfigurationError, DataError
from cifar_mlflow.tracking.reading import models
from cifar_mlflow.tracking.store import Store

if TYPE_CHECKING:
    from cifar_mlflow.learning.networks.pretrained import Pretrained

# Tags of a run: the digest of the weights, and what they are from; of a model, whose alias may move, the model itself.
DIGEST, SOURCE = "pretrained_digest", "pretrained_source"


def read(
    config: TrainingConfig, store: Store | None, recorded: Mapping[str, str] = MappingProxyType({})
) -> Pretrained | None:
    """The weights that `config` names; None for none. `recorded` are the tags of the run that is to be done again.

    Raises:
        ConfigurationError: they are a model of the store, and there is no store; torchvision has no such network.
        DataError: a file is missing or damaged, cannot be downloaded, or has other weights than were recorded.
        ModelError: the store has no such model, or it cannot be loaded.
    """
    if config.pretrained == "none":
        return None
    from cifar_mlflow.learning.networks import pretrained

    if config.pretrained == "default":
        found = pretrained.of_torchvision(config)
    elif is_path("pretrained", config.pretrained):
        found = pretrained.from_file(Path(config.pretrained))
    else:
        if store is None:
            told = f"--pretrained: {config.pretrained} is a model of the tracking store, and --offline asks for none"
            raise ConfigurationError(told, "options")
        model = models.find_loadable(store, named(config, recorded))
        classes = models.model_interface(model.uri).classes
        found = pretrained.from_model(model.uri, models.load_model(model.uri, model.tags).state_dict(), classes)
    if (began_with := recorded.get(DIGEST, found.digest)) != found.digest:
        raise DataError(
            f"--pretrained: {found.source} is not what the run began with (digest {found.digest}, recorded "
            f"{began_with}); put the original back"
        )
    return found


def is_of_store(config: TrainingConfig) -> bool:
    """Whether the weights are those of a model of the tracking store."""
    return config.pretrained not in ("none", "default") and not is_path("pretrained", config.pretrained)


def named(config: TrainingConfig, recorded: Mapping[str, str]) -> str:
    """What names the weights by which the recorded run began, even if an alias names another model by now."""
    source = recorded.get(SOURCE, "")
    return source if source.startswith("models:/") else config.pretrained
