"""Weights to start from: read, held against the network, taken or refused; and the backbone that is frozen."""

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from cifar_mlflow.config.rules import resolve, without_effect
from cifar_mlflow.errors import ConfigurationError, DataError, ModelError
from cifar_mlflow.learning import check
from cifar_mlflow.learning.data import datasets
from cifar_mlflow.learning.networks import pretrained, transfer
from cifar_mlflow.learning.networks.build import build
from cifar_mlflow.learning.networks.pretrained import Pretrained

CLASSES = ("a", "b", "c")
SHAPE = (8, 8, 3)
HEAD = frozenset({"19.weight", "19.bias"})  # of report_cnn


def make(classes=3, seed=0, **values):
    torch.manual_seed(seed)
    return build(resolve(values), classes, SHAPE)


def same(first, second):
    return first.keys() == second.keys() and all(first[name].equal(second[name]) for name in first)


class TestFiles:
    @pytest.mark.parametrize(
        ("name", "content"),
        [
            ("w.safetensors", lambda state: state),
            ("w.pt", lambda state: state),
            ("w.pth", lambda state: {"epoch": 3, "state_dict": state}),
            ("w.ckpt", lambda state: {"model": {f"module.{name}": tensor for name, tensor in state.items()}}),
        ],
    )
    def test_in_every_form_are_the_same_weights(self, work, name, content):
        state = dict(make().state_dict())
        (save_file if name.endswith(".safetensors") else torch.save)(content(state), work / name)
        found = pretrained.from_file(work / name)
        assert same(dict(found.weights), state)
        assert found.digest == Pretrained("", state).digest

    def test_another_bit_or_name_is_another_digest(self):
        state = dict(make().state_dict())
        changed = {**state, "19.bias": state["19.bias"].clone()}
        changed["19.bias"][0] += 1e-7
        renamed = {f"{name}x": tensor for name, tensor in state.items()}
        assert len({Pretrained("", each).digest for each in (state, changed, renamed)}) == 3

    @pytest.mark.parametrize(
        ("name", "content", "told"),
        [
            ("w.pt", b"no such thing", "cannot be read"),
            ("w.safetensors", b"\xff" * 50, "cannot be read"),
            ("missing.pt", None, "cannot be read"),
        ],
    )
    def test_that_cannot_be_read_are_told(self, work, name, content, told):
        if content is not None:
            (work / name).write_bytes(content)
        with pytest.raises(DataError, match=told):
            pretrained.from_file(work / name)

    def test_that_hold_code_or_something_else_are_refused(self, work):
        torch.save(nn.Linear(2, 2), work / "module.pt")
        with pytest.raises(DataError, match="which is never loaded: it could run any code"):
            pretrained.from_file(work / "module.pt")
        torch.save({"weights": 3}, work / "number.pt")
        with pytest.raises(DataError, match="holds no state_dict"):
            pretrained.from_file(work / "number.pt")

    def test_of_models_by_others_are_refused(self):
        with pytest.raises(ModelError, match="was not exported by cifar-mlflow"):
            pretrained.from_model("models:/m-1", {"weight": torch.zeros(1)}, CLASSES)


class TestWhatFits:
    def test_all_is_taken_of_the_same_classes(self):
        given, network = dict(make(seed=1).state_dict()), make()
        told = transfer.start_from(Pretrained("file", given, classes=CLASSES), network, HEAD, CLASSES)
        assert same(dict(network.state_dict()), given)
        assert told == "starts from file: all weights"

    def test_the_head_is_new_for_other_classes(self):
        given, network = dict(make(seed=1).state_dict()), make()
        before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
        told = transfer.start_from(Pretrained("model", given, classes=("x", "y", "z")), network, HEAD, CLASSES)
        now = network.state_dict()
        assert all(now[name].equal((before if name in HEAD else given)[name]) for name in now)
        assert told == "starts from model: all weights but 19.bias, 19.weight, for the 3 classes"

    def test_the_head_is_new_for_another_number_of_classes(self):
        given, network = dict(make(classes=7, seed=1).state_dict()), make()
        assert "but 19.bias" in transfer.start_from(Pretrained("file", given), network, HEAD, CLASSES)
        assert network.state_dict()["0.weight"].equal(given["0.weight"])

    def test_a_file_without_a_head_fits_and_so_does_an_old_one_without_counters(self):
        given = {
            name: tensor
            for name, tensor in make(seed=1).state_dict().items()
            if name not in HEAD and not name.endswith("num_batches_tracked")
        }
        transfer.start_from(Pretrained("file", given), make(), HEAD, CLASSES)

    @pytest.mark.parametrize(
        ("change", "told"),
        [
            ({"0.weight": torch.zeros(16, 3, 5, 5)}, r"0.weight: \(16, 3, 5, 5\) there, \(16, 3, 3, 3\) here"),
            ({"0.weight": None}, r"0.weight: nothing there, \(16, 3, 3, 3\) here"),
            ({"20.weight": torch.zeros(2)}, r"20.weight: \(2,\) there, and not in the network"),
        ],
    )
    def test_what_does_not_is_listed_and_refused_and_nothing_is_taken(self, change, told):
        given = {**make(seed=1).state_dict(), **change}
        given = {name: tensor for name, tensor in given.items() if tensor is not None}
        network = make()
        before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
        with pytest.raises(ConfigurationError, match=told):
            transfer.start_from(Pretrained("file", given), network, HEAD, CLASSES)
        assert same(dict(network.state_dict()), before)

    def test_of_many_the_first_are_listed(self):
        with pytest.raises(ConfigurationError, match=r"and \d+ more"):
            transfer.start_from(Pretrained("file", {}), make(), HEAD, CLASSES)

    def test_it_is_told_before_there_is_a_run(self, prepare):
        session = prepare()
        with pytest.raises(ConfigurationError, match="is of another network"):
            check.check(session.config, datasets.load(session.config), Pretrained("file", {}))


class TestTraining:
    def test_begins_with_the_weights_and_their_normalization(self, prepare):
        first = prepare(normalize=True)
        list(first.epochs())
        state = {name: tensor.clone() for name, tensor in first.preprocessing.state_dict().items()}
        weights = Pretrained("model", first.weights(), state, first_classes := ("a", "b"))
        again = prepare(weights)
        assert same(dict(again.preprocessing.state_dict()), state)
        assert all(again.weights()[name].equal(tensor) for name, tensor in first.weights().items() if name not in HEAD)
        assert first_classes != datasets.load(again.config).classes
        assert "19.bias" in again.start.told

    def test_of_fast_begins_with_its_whitening_too(self, prepare, write_npz):
        from support import tiny_arrays

        values = {"network": "fast", "widths": "8,8,8", "dataset": str(write_npz(**tiny_arrays(size=12)))}
        first = prepare(**values)
        list(first.epochs())
        given = {**first.weights(), "whitening.weight": torch.ones_like(first.weights()["whitening.weight"])}
        again = prepare(Pretrained("file", given), **values)
        assert same(again.weights(), given)

    @pytest.mark.parametrize(
        "values",
        [
            {},
            {"averaging": "ema", "weight_decay": 0.1, "bias_rate": 2, "dropout": 0.2},
            {"accelerate": "none", "optimizer": "sgd", "momentum": 0.9},
            {"network": "any_networks:reshape", "batch_size": 8},
            {"network": "torchvision:squeezenet1_1", "epochs": 1},
            {"network": "torchvision:resnet18", "epochs": 1, "batch_size": 64},
        ],
        ids=lambda values: "-".join(map(str, values.values())) or "defaults",
    )
    def test_with_a_frozen_backbone_changes_the_head_alone_to_the_last_bit(self, prepare, values):
        session = prepare(freeze="backbone", **values)
        before = {name: tensor.clone() for name, tensor in session.network.state_dict().items()}
        list(session.epochs())
        for state in (session.network.state_dict(), session.weights()):
            changed = {name for name in before if not state[name].equal(before[name])}
            assert changed == session.start.head
        assert 1 <= len(changed) <= 2

    def test_a_frozen_backbone_that_is_taken_up_comes_to_the_same_bits(self, prepare):
        whole = prepare(freeze="backbone")
        epochs = whole.epochs()
        next(epochs)
        state = {**whole.state(), "network": {name: each.clone() for name, each in whole.network.state_dict().items()}}
        again = prepare(freeze="backbone")
        again.restore(state)
        assert len(list(again.epochs())) == 1

    def test_the_backbone_has_a_rate_of_its_own(self, prepare):
        session = prepare(backbone_rate=0.1, bias_rate=2, learning_rate=0.01, weight_decay=0.1)
        names = {id(parameter): name for name, parameter in session.network.named_parameters()}
        rates = {
            names[id(parameter)]: (round(group["lr"], 9), group["weight_decay"])
            for group in session._optimizer.param_groups
            for parameter in group["params"]
        }
        assert (rates["19.weight"], rates["19.bias"]) == ((0.01, 0.1), (0.02, 0.05))
        assert (rates["0.weight"], rates["0.bias"]) == ((0.001, 0.1), (0.002, 0.05))
        assert len(rates) == len(names)
        assert session._schedule.rate == 0.01
        assert [result.learning_rate for result in session.epochs()] == [0.01, 0.01]

    def test_with_one_rate_is_what_it_was(self, prepare):
        plain, told = prepare(bias_rate=2), prepare(bias_rate=2, backbone_rate=1.0)
        for session in (plain, told):
            list(session.epochs())
        assert same(plain.weights(), told.weights())
        assert plain.start.head == frozenset()  # no second network was built for it


class TestTheConfiguration:
    @pytest.mark.parametrize(
        "value", ["none", "default", "w.safetensors", "/a b/w.pt", "0" * 32, "digits@champion", "models:/m-1"]
    )
    def test_takes(self, value):
        resolve({"pretrained": value, "network": "torchvision:resnet18"})

    @pytest.mark.parametrize("value", ["", "imagenet", "w.npz", "0" * 31])
    def test_refuses(self, value):
        with pytest.raises(ConfigurationError, match="--pretrained"):
            resolve({"pretrained": value})

    def test_knows_default_weights_of_torchvision_alone(self):
        with pytest.raises(ConfigurationError, match="--pretrained: default is of torchvision's networks alone"):
            resolve({"pretrained": "default"})

    @pytest.mark.parametrize(
        ("values", "told"),
        [
            ({"freeze": "backbone"}, "--freeze backbone with --pretrained none leaves"),
            ({"freeze": "backbone", "pretrained": "w.pt", "backbone_rate": 0.1}, "--backbone-rate 0.1 has no effect"),
            (
                {"pretrained": "default", "network": "torchvision:resnet18", "normalize": True},
                "--normalize true has no",
            ),
            ({"pretrained": "a@champion", "normalize": True}, "--normalize true has no effect with --pretrained a@ch"),
        ],
    )
    def test_names_what_has_no_effect(self, values, told):
        (found,) = without_effect(resolve(values))
        assert found.startswith(told)

    def test_is_the_same_wherever_the_file_is(self, work):
        configs = [resolve({"pretrained": path}) for path in ("w.pt", "/elsewhere/v.safetensors", "0" * 32)]
        assert len({config.fingerprint for config in configs}) == 1
        assert len({configs[0].run_fingerprint("d", "", digest) for digest in ("", "a", "b")}) == 3
        assert configs[0].pretrained == str(work.resolve() / "w.pt")
