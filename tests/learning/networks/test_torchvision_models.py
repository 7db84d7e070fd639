"""torchvision's classifiers by name: their heads, their stems on small images, what is refused of them."""

import pytest
import torch
from torch import nn
from torchvision import models

from cifar_mlflow.config.rules import resolve, without_effect
from cifar_mlflow.errors import ConfigurationError
from cifar_mlflow.learning.networks import source, torchvision_models, transfer
from cifar_mlflow.learning.networks.build import build

SMALL = (32, 32, 3)
HEADS = {
    "resnet18": {"fc.weight", "fc.bias"},
    "squeezenet1_1": {"classifier.1.weight", "classifier.1.bias"},  # a convolution
    "mobilenet_v3_small": {"classifier.3.weight", "classifier.3.bias"},
    "alexnet": {"classifier.6.weight", "classifier.6.bias"},
    "regnet_y_400mf": {"fc.weight", "fc.bias"},  # which computes with tensors how large it is
    "vit_b_32": {"heads.head.weight", "heads.head.bias"},
}
TWO_HEADS = {"aux1.fc2.weight", "aux1.fc2.bias", "aux2.fc2.weight", "aux2.fc2.bias", "fc.weight", "fc.bias"}
STEMS = {
    "resnet18": "conv1 steps by 1 pixel instead of 2; maxpool is left out",
    "densenet121": "features.conv0 steps by 1 pixel instead of 2; features.pool0 is left out",
    "squeezenet1_1": "features.0 steps by 1 pixel instead of 2; features.2 is left out",
    "mobilenet_v3_small": "features.0.0 steps by 1 pixel instead of 2",
    "shufflenet_v2_x0_5": "conv1.0 steps by 1 pixel instead of 2; maxpool is left out",
    "vgg11": "",  # begins with single pixels
    "vit_b_32": "",  # cuts the image into patches
}


def config(name, **values):
    return resolve({"network": f"torchvision:{name}", **values})


def network(name, classes=5, shape=SMALL):
    torch.manual_seed(0)
    return build(config(name), classes, shape)


@pytest.mark.parametrize("name", HEADS)
def test_the_head_is_for_the_classes_whatever_form_it_has(name):
    if name in ("alexnet", "vit_b_32"):  # of which a large one takes long to draw
        with torch.device("meta"):
            made = torchvision_models.build(config(name), 5, SMALL)
    else:
        made = network(name)
        assert made.eval()(torch.zeros(2, 3, 32, 32)).shape == (2, 5)
    assert transfer.head_of(config(name), made, 5, SMALL) == HEADS[name]


def test_the_heads_of_auxiliary_classifiers_are_heads_too():
    with torch.device("meta"):
        made = torchvision_models.build(config("googlenet"), 5, SMALL)
    assert transfer.head_of(config("googlenet"), made, 5, SMALL) == TWO_HEADS


def test_the_search_for_the_head_draws_nothing():
    made = network("resnet18")
    before = torch.get_rng_state()
    transfer.head_of(config("resnet18"), made, 5, SMALL)
    assert torch.get_rng_state().equal(before)


@pytest.mark.parametrize("name", STEMS)
def test_small_images_keep_their_size_at_the_beginning(name):
    with torch.device("meta"):
        made = torchvision_models.build(config(name), 5, SMALL)
        usual = models.get_model(name, num_classes=5)
    assert torchvision_models.fitted(made, SMALL) == STEMS[name]
    shapes = {key: tensor.shape for key, tensor in made.state_dict().items()}
    if name != "vit_b_32":  # whose positions depend on the size of the images
        assert shapes == {key: tensor.shape for key, tensor in usual.state_dict().items()}


def test_the_size_is_kept_indeed_and_only_of_small_images():
    seen = {}
    for side in (32, 64):
        made = network("resnet18", shape=(side, side, 3)).eval()
        made.layer1.register_forward_hook(lambda _, inputs, __, side=side: seen.update({side: inputs[0].shape[-1]}))
        made(torch.zeros(1, 3, side, side))
    assert seen == {32: 32, 64: 16}
    assert torchvision_models.fitted(made, (64, 64, 3)) == ""
    assert isinstance(made.maxpool, nn.MaxPool2d)


def test_gray_images_are_repeated_and_that_is_said():
    made = network("resnet18", shape=(32, 32, 1))
    assert made.conv1.in_channels == 3
    assert torchvision_models.fitted(made, (64, 64, 1)).endswith("gray images repeated in 3 channels")


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("resnet19", r"torchvision has no classifier 'resnet19' \(did you mean torchvision:resnet1[0-9]+\?\)"),
        ("fasterrcnn_resnet50_fpn", "torchvision has no classifier 'fasterrcnn_resnet50_fpn'"),
        ("inception_v3", "torchvision:inception_v3: it fails on images of"),  # too small for it
        ("maxvit_t", "torchvision:maxvit_t: it cannot be built for images of"),
    ],
)
def test_what_does_not_go_is_refused_by_name(name, told):
    with pytest.raises(ConfigurationError, match=told):
        network(name)


def test_what_is_not_the_users_has_no_source_and_what_it_does_not_listen_to_is_told():
    assert source.of("torchvision:resnet18") is None
    assert source.edited("torchvision:resnet18") == []
    found = without_effect(config("resnet18", activation="gelu", dropout=0.2))
    assert [told.split(" has no effect")[0] for told in found] == ["--activation gelu", "--dropout 0.2"]
