"""Networks as people write them are trained, resumed, trained again and exported, or refused before the training."""

import io

import any_networks
import pytest
import torch
from support import tiny_arrays

from cifar_mlflow.config.rules import resolve
from cifar_mlflow.errors import ConfigurationError
from cifar_mlflow.learning import check, evaluation, export
from cifar_mlflow.learning.data import datasets
from cifar_mlflow.learning.networks import own
from cifar_mlflow.learning.training import Training

# Of torchvision's.
QUICK = ("squeezenet1_1", "alexnet")
LONG = [pytest.param(name, marks=pytest.mark.long) for name in any_networks.TORCHVISION if name not in QUICK]


@pytest.fixture
def prepare(tiny, write_npz):
    """A function that returns configuration and data for a network, by its name in any_networks."""

    def make(name, **values):
        path = tiny
        if size := any_networks.TORCHVISION.get(name):
            path = write_npz(**tiny_arrays(train=20, test=4, size=size))
        settings = {"network": f"any_networks:{name}", "dataset": str(path), "epochs": 2, "batch_size": 32}
        config = resolve({**settings, "precision": "float32", **values})
        data = datasets.load(config)
        return config, data

    return make


def stored(state):
    """The state as it comes back from a file."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    buffer.seek(0)
    return torch.load(buffer, weights_only=True)


def same(first, second):
    return first.keys() == second.keys() and all(first[name].equal(second[name]) for name in first)


def is_good(config, data):
    """Trains, resumes, trains again, exports; returns how the network was to be trained."""
    checked = check.check(config, data)

    def new():
        return Training(config, data, memory_format=checked.memory_format)

    whole = new()
    epochs = whole.epochs()
    next(epochs)
    state = stored(whole.state())
    list(epochs)
    resumed = new()
    resumed.restore(state)
    assert len(list(resumed.epochs())) == 1
    assert same(resumed.weights(), whole.weights())
    again = new()
    assert len(list(again.epochs())) == 2
    assert same(again.weights(), whole.weights())
    if config.network.rpartition(":")[2] in any_networks.TORCHVISION:  # the check's own export took long enough
        return checked
    model = export.classifier(whole.preprocessing, whole.network, whole.weights())
    answers = torch.from_numpy(evaluation.predict(model, data.test))
    program = export.program(model, data.test.pixels[:4]).module()
    torch.testing.assert_close(program(data.test.pixels), answers, rtol=1e-5, atol=1e-5)
    return checked


@pytest.mark.parametrize("name", [*any_networks.IDIOMS, *QUICK, *LONG])
def test_it_is_trained_resumed_trained_again_and_exported(prepare, name):
    checked = is_good(*prepare(name))
    told = {
        "view": "--network: images and weights lie in memory in torch's usual order instead",
        "view_of_all": "RuntimeError: view size is not compatible",
        "auxiliary_head": "--network: in training it gives 2 outputs; only the first, as logits, is trained",
        "googlenet": "--network: in training it gives 3 outputs; only the first, as logits, is trained",
    }.get(name, "")
    assert told in "".join(checked.warnings)
    assert bool(told) == bool(checked.warnings)
    in_order = name.startswith("view")
    assert checked.memory_format == (torch.contiguous_format if in_order else torch.channels_last)


@pytest.mark.parametrize("name", ["kept_activation", "weight_norm", "spectral_norm"])
@pytest.mark.parametrize("values", [{"averaging": "ema"}, {"epoch_evaluation": False}], ids=["ema", "unscored"])
def test_what_torch_would_not_copy_is_copied(prepare, name, values):
    is_good(*prepare(name, **values))


def test_a_view_is_trained_with_bfloat16_too(prepare):
    assert is_good(*prepare("view", precision="bfloat16")).memory_format == torch.contiguous_format


@pytest.mark.parametrize("name", any_networks.REFUSED)
def test_it_is_refused_with_the_place_in_the_users_file(prepare, name):
    config, data = prepare(name)
    with pytest.raises(ConfigurationError) as refused:
        check.check(config, data)
    (fault,) = refused.value.faults
    assert fault.startswith(f"--network: any_networks:{name}: ")
    assert any_networks.REFUSED[name] in fault
    assert "\n" not in fault
    assert (any_networks.__file__ in fault) == (name in any_networks.PLACES)


def test_batch_normalization_of_single_images_is_refused(prepare):
    config, data = prepare("normalized_alone", batch_size=1, batch_norm=False)
    with pytest.raises(ConfigurationError, match="ValueError: Expected more than 1 value per channel when training"):
        check.check(config, data)
    assert check.check(*prepare("normalized_alone")).warnings == ()


def test_one_that_is_random_in_evaluation_is_told_of(prepare):
    (told,) = check.check(*prepare("dropout_always")).warnings
    assert "in evaluation it answers the same images otherwise each time" in told
    assert "training=self.training" in told


def test_what_is_not_to_be_served_need_not_be_exportable(prepare):
    assert check.check(*prepare("branch"), exported=False).warnings == ()


def test_the_check_leaves_no_trace_in_the_training(prepare):
    config, data = prepare("drawing")
    first = Training(config, data)
    list(first.epochs())
    torch.manual_seed(7)
    before = torch.get_rng_state()
    check.check(config, data)
    assert torch.get_rng_state().equal(before)


def test_an_error_in_the_midst_of_a_training_names_the_place(prepare, monkeypatch):
    config, data = prepare("reshape")
    training = Training(config, data)
    epochs = training.epochs()
    next(epochs)
    monkeypatch.setattr(any_networks.reshape, "between", any_networks.fails_in_training.between)
    with pytest.raises(ConfigurationError, match=r"in a training step: ValueError: not ready \(.*any_networks"):
        next(epochs)


def test_a_checkpoint_of_another_network_is_refused(prepare):
    state = Training(*prepare("reshape")).state()
    with pytest.raises(ConfigurationError, match="the checkpoint is of another network: RuntimeError: Error"):
        Training(*prepare("module_list")).restore(state)


def test_our_own_networks_errors_stay_what_they_are():
    with pytest.raises(ZeroDivisionError), own.faults_told(resolve({}), "it fails"):
        _ = 1 / 0
