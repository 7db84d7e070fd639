"""The network for short trainings: its parts, and that it learns."""

import numpy as np
import pytest
import torch
from support import tiny_arrays
from torch import nn

from cifar_mlflow.config.rules import resolve
from cifar_mlflow.errors import ConfigurationError
from cifar_mlflow.learning.data import datasets
from cifar_mlflow.learning.networks import build, fast
from cifar_mlflow.learning.training import Training

VALUES = {"network": "fast", "activation": "gelu", "widths": "8,16,16"}


def network(shape=(32, 32, 3), classes=10, **values):
    torch.manual_seed(0)
    return build.build(resolve({**VALUES, **values}), classes, shape)


@pytest.mark.parametrize("shape", [(32, 32, 3), (28, 28, 1), (9, 9, 3), (20, 33, 1)])
def test_takes_images_of_any_size_from_nine_pixels(shape):
    height, width, channels = shape
    assert network(shape, 5)(torch.zeros(2, channels, height, width)).shape == (2, 5)


def test_smaller_images_are_refused_before_a_run_is_made(cifar, write_npz, runs):
    outcome = cifar("train", "--dataset", write_npz(size=8), "--network", "fast")
    assert outcome.code == 2
    assert "--network: fast takes images of at least 9 x 9 pixels, not 8 x 8" in outcome.stderr
    assert runs() == []


def test_whitening_makes_the_outputs_uncorrelated_and_is_not_trained():
    made = network()
    images = torch.rand(200, 3, 32, 32) @ torch.rand(32, 32) / 8  # neighbours resemble each other
    images -= images.mean((0, 2, 3), keepdim=True)
    made.whiten(images)
    outputs = nn.functional.conv2d(images, made.whitening.weight[:12]).permute(1, 0, 2, 3).flatten(1).double()
    covariance = outputs @ outputs.T / outputs.shape[1]
    scale = covariance.diagonal().sqrt()
    assert (covariance / scale / scale[:, None] - torch.eye(12)).abs().max() < 0.05
    assert made.whitening.weight[12:].equal(-made.whitening.weight[:12])
    assert not made.whitening.weight.requires_grad
    assert made.whitening.bias.requires_grad


class TestTheImagesThatAreWhitened:
    def test_of_cifar10s_size_are_the_first_5000(self):
        labels = torch.arange(45_000) % 10
        assert network().whitened(labels, 32, 32).equal(torch.arange(5000))

    def test_of_larger_ones_have_no_more_patches_than_those(self):
        count = len(network().whitened(torch.zeros(10_000, dtype=torch.int64), 224, 224))
        assert count == 5000 * 31**2 // 223**2
        assert len(network().whitened(torch.zeros(10, dtype=torch.int64), 4000, 4000)) == 1

    def test_are_all_where_there_are_few(self):
        assert network().whitened(torch.arange(20) // 10, 32, 32).equal(torch.arange(20))

    def test_are_taken_from_everywhere_if_the_classes_are_sorted(self):
        labels = torch.arange(20_000) // 2000
        chosen = network().whitened(labels, 32, 32)
        assert labels[chosen].bincount().tolist() == [500] * 10

    def test_are_what_the_training_begins_with(self, tmp_path, monkeypatch):
        arrays = tiny_arrays(size=12)
        order = np.argsort(arrays["y_train"], kind="stable")
        np.savez(tmp_path / "sorted.npz", **{**arrays, **{key: arrays[key][order] for key in ("x_train", "y_train")}})
        monkeypatch.setattr(fast, "WHITENED_IMAGES", 36)  # a third of them, less than a class
        config = resolve({**VALUES, "dataset": str(tmp_path / "sorted.npz")})
        training = Training(config, datasets.load(config))
        expected = build.build(config, 3, (12, 12, 3))
        expected.whiten(training.preprocessing(training._train.pixels[::3]))
        assert training.network.whitening.weight.equal(expected.whitening.weight)


def test_convolutions_start_by_passing_on_what_they_get():
    first = next(layer for layer in network().blocks if isinstance(layer, nn.Conv2d) and layer.in_channels == 16)
    images = torch.rand(1, 16, 5, 5)
    assert first(images)[:, :16].allclose(images)


def test_only_the_bias_of_batch_normalization_is_trained():
    norms = [layer for layer in network().blocks if isinstance(layer, nn.BatchNorm2d)]
    assert len(norms) == 6
    assert not any(layer.weight.requires_grad for layer in norms)
    assert all(layer.bias.requires_grad for layer in norms)


@pytest.mark.parametrize(("option", "value"), [("batch_norm", False)])
def test_what_it_cannot_be_is_refused(option, value):
    with pytest.raises(ConfigurationError, match="--batch-norm: --network fast cannot be without it"):
        resolve({**VALUES, option: value})


def test_it_learns(write_npz):
    """Colours alone tell the tiny dataset's classes apart."""
    path = write_npz(size=12)
    config = resolve(
        {
            **VALUES,
            "dataset": str(path),
            "epochs": 20,
            "batch_size": 16,
            "optimizer": "muon",
            "learning_rate": 0.09,
            "momentum": 0.8,
            "bias_rate": 10,
            "weight_decay": 0.11,
            "scheduler": "triangular",
            "warmup": 0,
            "normalize": True,
        }
    )
    *_, last = Training(config, datasets.load(config)).epochs()
    assert last.train_accuracy > 90
    assert last.held_out_accuracy > 90
