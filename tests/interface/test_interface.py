"""`import cifar_mlflow as cm`: what the functions return, and what reaches the caller meanwhile."""

from __future__ import annotations

import io
import subprocess
import sys
import warnings

import numpy as np
import pandas as pd
import pytest

import cifar_mlflow as cm
from cifar_mlflow import interface
from cifar_mlflow.errors import ConfigurationError, ModelError

FAST = {"epochs": 2, "batch_size": 8, "scheduler": "none", "precision": "float32"}


@pytest.fixture
def store(cifar):
    """An initialized store in the current directory."""
    return cifar


def test_the_import_is_instant_and_every_name_is_there():
    heavy = ("torch", "mlflow", "pandas", "numpy", "optuna", "pydantic", "click")
    program = f"""
import sys, cifar_mlflow as cm
print([name for name in {heavy} if name in sys.modules])
print([name for name in cm.__all__ if not hasattr(cm, name) or name not in dir(cm)])
"""
    told = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert told.stdout.splitlines() == ["[]", "[]"]
    with pytest.raises(AttributeError, match="no attribute 'trane'"):
        cm.trane  # noqa: B018


def test_each_function_says_what_it_does():
    assert all(getattr(interface, name).__doc__ for name in cm.__all__)


def test_a_run_has_its_numbers(store, tiny, client, capfd):
    heard = []
    run = cm.train({"dataset": str(tiny), "epochs": 5}, callback=heard.append, **{**FAST, "seed": 3})
    assert [each.epoch for each in heard] == [1, 2]  # options win over the mapping
    assert run.config.seed == 3
    recorded = client().get_run(run.id)
    assert recorded.info.status == "FINISHED"
    assert run.waiting == 0
    curve = [point.value for point in client().get_metric_history(run.id, "val_accuracy")]
    assert run.history.held_out_accuracy.tolist() == curve
    assert run.history.index.tolist() == [1, 2]
    assert (run.final_accuracy, run.experiment) == (curve[-1], "tiny")
    assert run.best_accuracy == run.history.held_out_accuracy.max()
    assert capfd.readouterr() == ("", "")


def test_a_file_is_a_configuration(store, tiny, work):
    (work / "run.yaml").write_text(f"dataset: {tiny}\nepochs: 1\nbatch_size: 8\nscheduler: none\n")
    assert len(cm.train(work / "run.yaml").history) == 1
    assert len(cm.train(str(work / "run.yaml"), epochs=2).history) == 2


def test_faults_are_told_together(store):
    with pytest.raises(ConfigurationError) as caught:
        cm.train(dataset="digits", epochs=0, activation="prleu", optimiser="adam")
    assert [fault.partition(":")[0] for fault in caught.value.faults] == ["--activation", "--epochs", "--optimiser"]


def test_warnings_are_the_callers_own(store, tiny):
    with pytest.warns(UserWarning, match="--gamma 0.5 has no effect with --scheduler none") as caught:
        cm.train(dataset=str(tiny), gamma=0.5, **FAST)
    assert caught[0].filename == __file__


def test_a_store_of_its_own(store, tiny, work):
    other = f"sqlite:///{work}/other.db"
    run = cm.train(dataset=str(tiny), tracking_uri=other, **FAST)
    assert cm.list_runs(tracking_uri=other).run_id.tolist() == [run.id]
    assert cm.list_runs().empty


def test_offline_and_delivered(store, tiny, statuses):
    run = cm.train(dataset=str(tiny), offline=True, **FAST)
    assert run.waiting > 0
    assert len(run.history) == 2
    assert statuses() == []
    assert len(cm.sync().delivered) == 1
    assert statuses() == ["FINISHED"]


def test_what_broke_off_is_resumed(store, tiny):
    def stop(result):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        cm.train(dataset=str(tiny), callback=stop, **FAST)
    run = cm.resume(cm.list_runs().run_id[0])
    assert run.history.index.tolist() == [2]


def test_progress_is_shown_where_it_is_wanted(store, tiny, capfd):
    cm.train(dataset=str(tiny), progress=True, **FAST)
    assert "training: " in capfd.readouterr().err
    cm.train(dataset=str(tiny), progress=False, **FAST)
    assert capfd.readouterr().err == ""


def test_a_comparison_is_a_frame_a_page_and_a_text(store, tiny):
    for activation in ("relu", "gelu"):
        for seed in (0, 1):
            cm.train(dataset=str(tiny), activation=activation, seed=seed, **FAST)
    comparison = cm.compare("tiny")
    pd.testing.assert_frame_equal(
        comparison.to_frame(), pd.read_csv(io.StringIO(store("compare", "tiny", "--format", "csv").stdout))
    )
    assert str(comparison) == store("compare", "tiny").stdout
    assert "<svg" in comparison.to_html()
    assert "<svg" not in comparison._repr_html_()  # escaped, within the frame
    assert comparison._repr_html_().startswith("<iframe")


def test_a_sweep_from_a_mapping(store, tiny):
    spec = {
        "name": "s",
        "base": {"dataset": str(tiny), **FAST},
        "space": {"activation": ["relu", "gelu"]},
        "workers": 1,
    }
    done = cm.sweep(spec)
    assert (done.outcome.runs, done.outcome.failed, done.outcome.left) == (2, 0, 0)
    assert done.winner.run_id in " ".join(done.table.run_ids)
    assert sorted(done.table["parameter:activation"]) == ["gelu", "relu"]


def test_a_sweep_in_parts(store, tiny):
    spec = {
        "name": "s",
        "base": {"dataset": str(tiny), **FAST},
        "space": {"activation": ["relu", "gelu", "elu"]},
        "repeats": 1,
        "workers": 1,
    }
    part = cm.sweep(spec, part="1/3")
    assert (part.runs, part.failed, part.lacks) == (1, 0, ("1 run of part 2/3", "1 run of part 3/3"))
    with pytest.raises(ModelError, match="the sweep s is not complete: 1 run of part 2/3, 1 run of part 3/3 not done"):
        cm.sweep(spec, report=True)
    done = cm.sweep(spec, part="2/3", take_over=[3])
    assert (done.id, done.outcome.runs, len(done.table)) == (part.run_id, 3, 3)
    assert cm.sweep(spec, report=True).table.equals(done.table)
    with pytest.raises(ConfigurationError) as caught:
        cm.sweep(spec, part=2, take_over="3")
    assert [fault.partition(":")[0] for fault in caught.value.faults] == ["part", "take_over"]


def test_a_model_is_asked(store, tiny):
    from PIL import Image

    run = cm.train(dataset=str(tiny), **FAST)
    model = cm.load(run.id)
    images = np.load(tiny)["x_test"]
    probabilities = model(images)
    assert probabilities.shape == (len(images), len(model.classes))
    assert probabilities.sum(1) == pytest.approx(1, abs=1e-5)
    best = [model.classes[index] for index in probabilities.argmax(1)]
    assert [each.ranking[0][0] for each in cm.predict(run.id, images)] == best
    assert [each.ranking[0][0] for each in cm.predict(run.id, str(tiny))] == best
    pictures = [Image.fromarray(images[0]), Image.new("F", (8, 8))]
    first, second = cm.predict(run.id, pictures, top=2)
    assert [name for name, _ in first.ranking] == [model.classes[index] for index in (-probabilities[0]).argsort()[:2]]
    assert second.reason.startswith("its pixels are of the kind F")
    with pytest.raises(ModelError, match=r"takes uint8 of shape \(n, 8, 8, 3\), not float32"):
        model(images.astype("float32"))
    with pytest.raises(ConfigurationError, match="--top: 99 is refused"):
        cm.predict(run.id, images, top=99)


def test_the_other_commands(store, tiny, smoke_here):
    run = cm.train(dataset=str(tiny), **FAST)
    assert cm.evaluate(run.id).run_id == run.id
    assert cm.reproduce(run.id).reproduced
    assert cm.promote(run.id).status == "promoted"
    assert [version.aliases for version in cm.history("tiny").versions] == [("champion",)]
    assert "store" in cm.doctor().well
    with pytest.raises(ModelError, match="there is no registered model 'nobody'"):
        cm.rollback("nobody")


def test_nothing_of_the_callers_is_changed(store, tiny, monkeypatch):
    import os

    before = dict(os.environ)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        cm.train(dataset=str(tiny), tracking_uri="sqlite:///elsewhere.db", **FAST)
    assert dict(os.environ) == before


def test_a_script_whose_workers_would_sweep_again_ends_with_the_reason(store, tiny, work):
    spec = {
        "name": "unguarded",
        "base": {"dataset": str(tiny), **FAST},
        "space": {"activation": ["relu"]},
        "workers": 1,
    }
    (work / "script.py").write_text(f"import cifar_mlflow as cm\ncm.sweep({spec!r})\n")
    ended = subprocess.run([sys.executable, "script.py"], capture_output=True, text=True, timeout=120)
    assert ended.returncode == 1
    assert "put what trains below `if __name__ == '__main__':`" in ended.stderr
    assert "the workers cannot start" in ended.stderr.splitlines()[-1]
