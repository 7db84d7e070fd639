"""Weights that torchvision has: fetched, checked, and normalized as they were trained."""

import hashlib
import socket

import pytest
import torch
from support import TINY_CLASSES

from cifar_mlflow.config.rules import resolve
from cifar_mlflow.errors import DataError
from cifar_mlflow.learning.networks import pretrained

DEFAULT = {"network": "torchvision:resnet18", "pretrained": "default"}


def same(first, second):
    return first.keys() == second.keys() and all(first[name].equal(second[name]) for name in first)


class TestTorchvisionsWeights:
    @pytest.fixture
    def server(self, work, monkeypatch):
        """Weights of a resnet18 for 7 classes, where torchvision says; the file has its digest in its name."""
        from torchvision import models
        from torchvision.models import WeightsEnum
        from torchvision.models._api import Weights
        from torchvision.transforms._presets import ImageClassification

        torch.manual_seed(5)
        state = models.resnet18(num_classes=7).state_dict()
        torch.save(state, work / "new.pth")
        digest = hashlib.sha256((work / "new.pth").read_bytes()).hexdigest()[:8]
        (work / "new.pth").rename(work / f"resnet18-{digest}.pth")
        url = (work / f"resnet18-{digest}.pth").as_uri()
        transforms = lambda: ImageClassification(crop_size=32)  # noqa: E731
        kind = WeightsEnum("Some", {"DEFAULT": Weights(url, transforms, {})})
        monkeypatch.setattr(models, "get_model_weights", lambda name: kind)
        return state, digest

    def test_are_downloaded_once_and_have_their_own_normalization(self, server, prepare, work):
        state, digest = server
        before = socket.getdefaulttimeout()
        found = pretrained.of_torchvision(resolve(DEFAULT))
        assert socket.getdefaulttimeout() == before
        assert same(dict(found.weights), dict(state))
        (work / f"resnet18-{digest}.pth").unlink()
        assert pretrained.of_torchvision(resolve(DEFAULT)).digest == found.digest  # from the cache
        session = prepare(found, **DEFAULT)
        black = session.preprocessing(torch.zeros(1, 8, 8, 3, dtype=torch.uint8))[0, :, 0, 0]
        mean, deviation = torch.tensor((0.485, 0.456, 0.406)), torch.tensor((0.229, 0.224, 0.225))
        torch.testing.assert_close(black, -mean / deviation)
        assert session.network.conv1.weight.equal(state["conv1.weight"].to(memory_format=torch.channels_last))
        assert session.network.fc.out_features == TINY_CLASSES

    def test_that_are_not_there_are_asked_for_by_name_and_place(self, server, work):
        _, digest = server
        (work / f"resnet18-{digest}.pth").unlink()
        with pytest.raises(DataError, match=rf"Put that file at .*/weights/resnet18-{digest}.pth"):
            pretrained.of_torchvision(resolve(DEFAULT))

    def test_with_another_content_are_refused(self, server, work):
        _, digest = server
        (work / f"resnet18-{digest}.pth").write_bytes(b"something else")
        with pytest.raises(DataError, match="could not be downloaded"):
            pretrained.of_torchvision(resolve(DEFAULT))
        cache = pretrained.cache_directory() / "weights" / f"resnet18-{digest}.pth"
        cache.write_bytes(b"something else")
        with pytest.raises(DataError, match="its sha256 differs"):
            pretrained.of_torchvision(resolve(DEFAULT))
