"""A training that goes on from its state comes to the same bits as one that was not broken off."""

import dataclasses
import io

import pytest
import torch

from cifar_mlflow.config.rules import resolve
from cifar_mlflow.errors import ConfigurationError
from cifar_mlflow.learning import training
from cifar_mlflow.learning.data import datasets
from cifar_mlflow.learning.training import Training

EPOCHS = 3


@pytest.fixture
def prepare(tiny, monkeypatch):
    """A function that makes a training on the tiny dataset; `on_check` is called after every step but the last."""
    monkeypatch.setattr(training, "STEPS_BETWEEN_CHECKS", 1)

    def make(on_check=lambda: None, **values):
        settings = {"dataset": str(tiny), "epochs": EPOCHS, "batch_size": 8, "precision": "float32", **values}
        config = resolve(settings)
        return Training(config, datasets.load(config), on_check=on_check)

    return make


def measured(result):
    return [value for name, value in dataclasses.asdict(result).items() if name != "images_per_second"]


def stored(state):
    """The state as it comes back from a file."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    buffer.seek(0)
    return torch.load(buffer, weights_only=True)


def all_states(prepare, values):
    """The states after each step and each epoch, the results and the weights of a training in one go."""
    states = []
    whole = prepare(on_check=lambda: states.append(stored(whole.state())), **values)
    results = []
    for result in whole.epochs():
        results.append(measured(result))
        states.append(stored(whole.state()))
    assert len(states) >= EPOCHS * 14
    return states, results, whole.weights()


def same(first, second):
    return first.keys() == second.keys() and all(first[name].equal(second[name]) for name in first)


OPTIMIZERS = [{"optimizer": name} for name in ("adamw", "adagrad", "rmsprop", "adamax", "asgd", "muon")]


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"optimizer": "sgd", "momentum": 0.9, "scheduler": "one_cycle", "learning_rate": 0.1},
        {"optimizer": "rmsprop", "momentum": 0.9, "scheduler": "step", "step_size": 1},
        {"scheduler": "cosine", "augmentation": "flip_crop", "dropout": 0.3, "normalize": True},
        {"scheduler": "multistep", "milestones": "1,2", "activation": "rrelu", "augmentation": "flip"},
        {"scheduler": "exponential", "precision": "bfloat16", "dropout": 0.2},
        {"validation_size": 0, "scheduler": "one_cycle", "batch_norm": False},
        {"averaging": "ema", "augmentation": "flip_crop", "alternate_flip": True, "shift": 2, "padding": "reflect"},
        {"optimizer": "muon", "scheduler": "triangular", "bias_rate": 3, "momentum": 0.6, "weight_decay": 0.1},
        *OPTIMIZERS,
    ],
    ids=lambda values: "-".join(map(str, values.values())) or "defaults",
)
def test_from_any_step_it_comes_to_the_same_bits(prepare, values):
    states, results, weights = all_states(prepare, values)
    steps = len(states) // EPOCHS
    # Around the ends of epochs, and between.
    for position in (0, steps - 2, steps - 1, steps, steps + 6, len(states) - 1):
        torch.rand(7)  # what another process has drawn
        again = prepare(**values)
        again.restore(states[position])
        rest = [measured(result) for result in again.epochs()]
        assert rest == results[EPOCHS - len(rest) :]
        assert len(rest) == EPOCHS - (position + 1) // steps
        assert same(again.weights(), weights), position


def test_it_can_be_broken_off_again_and_again(prepare):
    values = {"augmentation": "flip_crop", "dropout": 0.2, "scheduler": "one_cycle"}
    states, results, weights = all_states(prepare, values)
    state, reached = states[3], []
    while True:
        taken = []
        session = prepare(on_check=lambda: taken.append(stored(session.state())), **values)  # noqa: B023
        session.restore(state)
        try:
            for result in session.epochs():
                reached.append(measured(result))
                taken.append(stored(session.state()))
                if len(taken) >= 5:
                    raise KeyboardInterrupt
            break
        except KeyboardInterrupt:
            state = taken[-1]
    assert reached == results
    assert same(session.weights(), weights)


def test_the_precision_and_the_threads_are_those_of_the_state(prepare):
    before = torch.get_num_threads()
    state = prepare(precision="bfloat16").state()
    state["threads"] = 2
    try:
        session = prepare(precision="float32")
        session.restore(state)
        assert session.precision == torch.bfloat16
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_on_another_kind_of_device_it_does_not_go_on(prepare):
    state = prepare().state()
    state["device"] = "cuda"
    with pytest.raises(ConfigurationError, match="the training was on cuda and can go on there alone, not on cpu"):
        prepare().restore(state)


def test_the_clock_is_asked_seldom_and_never_at_an_epochs_end(prepare, monkeypatch):
    monkeypatch.setattr(training, "STEPS_BETWEEN_CHECKS", 7)
    asked = []
    session = prepare(on_check=lambda: asked.append(session.state()["in_progress"]["steps"]))
    list(session.epochs())
    assert asked == [7] * EPOCHS  # and not 14, the last step
