"""The least and the largest value of each number, and that nothing beyond is taken."""

import math

import pytest
from pydantic import ValidationError

from cifar_mlflow.config.training import TrainingConfig

LEAST, BELOW_ONE = math.ulp(0.0), math.nextafter(1.0, 0.0)
MANY = 1_000_000
WHOLE = {
    **dict.fromkeys(("batch_size", "accumulate", "epochs", "step_size", "patience"), (1, MANY)),
    **dict.fromkeys(("seed", "split_seed"), (0, 2**32 - 1)),
    "image_size": (4, 1024),
    "threads": (1, 1024),
    "shift": (1, 64),
    "validation_size": (0, None),
}
REAL = {
    **dict.fromkeys(("dropout", "label_smoothing", "momentum", "warmup"), (0.0, BELOW_ONE)),
    **dict.fromkeys(
        ("learning_rate", "bias_rate", "backbone_rate", "gamma", "clip_grad", "max_minutes"), (LEAST, None)
    ),
    "averaging_decay": (LEAST, BELOW_ONE),
    "weight_decay": (0.0, None),
}
LIMITS = [
    *((name, low, high, low - 1, high and high + 1) for name, (low, high) in WHOLE.items()),
    *((name, low, high, math.nextafter(low, -1.0), high and 1.0) for name, (low, high) in REAL.items()),
]


@pytest.mark.parametrize(("name", "low", "high", "below", "above"), LIMITS, ids=[name for name, *_ in LIMITS])
def test_the_limits_are_taken_and_nothing_beyond(name, low, high, below, above):
    assert [getattr(TrainingConfig(**{name: value}), name) for value in (low, high or low)] == [low, high or low]
    for value in filter(lambda value: value is not None, (below, above)):
        with pytest.raises(ValidationError):
            TrainingConfig(**{name: value})


def test_every_number_is_among_them():
    taken = {name for name, field in TrainingConfig.model_fields.items() if type(field.default) in (int, float)}
    assert taken <= WHOLE.keys() | REAL.keys()
