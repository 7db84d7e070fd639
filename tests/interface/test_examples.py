"""Each function of the interface has an example, which does what it says."""

from __future__ import annotations

import doctest
import inspect

import numpy as np
import pytest

import cifar_mlflow as cm

# In the order of a story: a later example goes on with what an earlier one has made.
ORDER = (
    "train", "resume", "sweep", "list_runs", "compare", "evaluate", "load", "predict", "calibrate", "export", "promote",
    "history", "rollback", "reproduce", "mislabelled", "sync", "doctor",
)  # fmt: skip


def test_each_function_has_its_place_in_the_story():
    assert set(ORDER) == {name for name in cm.__all__ if inspect.isfunction(getattr(cm, name))}


@pytest.mark.filterwarnings("ignore")
def test_the_examples(cifar, smoke_here):
    def stop(result):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        cm.train(dataset="digits", epochs=2, scheduler="none", run_name="broken", callback=stop)
    names = {"cm": cm, "np": np, "broken_off": cm.list_runs().run_id[0]}
    told: list[str] = []
    for name in ORDER:
        function = getattr(cm, name)
        example = doctest.DocTestParser().get_doctest(inspect.getdoc(function), names, name, None, None)
        assert example.examples, f"{name} has no example"
        doctest.DocTestRunner().run(example, out=told.append, clear_globs=False)
        names |= example.globs
    assert not told, "".join(told)
