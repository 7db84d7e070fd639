"""MLflow's own UI after a real sweep, looked at in a real browser: the saved views, Compare, curves and artifacts.

MLflow documents neither its saved views nor its pages, so a new version of it that shows less fails here.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from dataclasses import dataclass

import pytest
from mlflow import MlflowClient
from support import run_here, standing_in

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: no browser test")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="chromium is not on PATH: no browser test")

EPOCHS = 3
WAIT = 90_000  # milliseconds: long, for a machine that is busy with trainings
SPEC = """
name: tiny-sweep
experiment: browser
base: {{dataset: {dataset}, epochs: {epochs}, batch_size: 8, scheduler: none, precision: float32}}
space:
  activation: [relu, silu]
  learning_rate: [0.00002, 0.01]
workers: 1
log_models: false
"""
# What a first visit would be greeted with.
SEEN_BEFORE = {
    "mlflow.assistant.fab.autoOpenedOnFirstLoad_v1": "true",
    "mlflow.assistant.panelOpen_v1": "false",
    "_mlflow_model_registry_promo_modal_dismissed_v1": "true",
}
FLAGS = (
    "--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync"
)
PLOTS = """() => [...document.querySelectorAll('.js-plotly-plot')].map(plot => ({
    step: plot.layout.xaxis?.title?.text,
    lines: plot.data.filter(trace => trace.mode === 'lines+markers').map(trace => [...trace.x]),
    bands: plot.data.filter(trace => trace.fill).length,
    axes: plot.data.flatMap(trace => (trace.dimensions || []).map(axis => axis.label)),
}))"""


@dataclass(frozen=True)
class Swept:
    """A finished sweep: the ids of its parent and its trials, and what the command printed."""

    experiment: str
    parent: str
    trials: dict[str, float]
    """Run id to best_val_accuracy."""
    views: dict[str, str]
    """Name of a saved view to its key."""
    printed: str


@pytest.fixture(scope="module")
def swept(server, tiny, tmp_path_factory) -> Swept:
    """A sweep over two parameters, by the command line."""
    with standing_in(tmp_path_factory.mktemp("swept")) as directory:
        os.environ["MLFLOW_TRACKING_URI"] = server
        (directory / "spec.yaml").write_text(SPEC.format(dataset=tiny, epochs=EPOCHS))
        done = run_here("sweep", "spec.yaml")
    assert done.code == 0, done.output
    client = MlflowClient(server)
    experiment = client.get_experiment_by_name("browser")
    runs = client.search_runs([experiment.experiment_id])
    (parent,) = [run.info.run_id for run in runs if run.data.tags["kind"] == "sweep"]
    trials = {run.info.run_id: run.data.metrics["best_val_accuracy"] for run in runs if run.info.run_id != parent}
    assert len(trials) == 4
    prefix = "mlflow.sharedViewState."
    views = {
        json.loads(value)["name"]: tag.removeprefix(prefix)
        for tag, value in experiment.tags.items()
        if tag.startswith(prefix)
    }
    return Swept(experiment.experiment_id, parent, trials, views, done.stdout)


@pytest.fixture(scope="module")
def browser():
    with playwright.sync_playwright() as started:
        chromium = started.chromium.launch(executable_path=CHROMIUM, args=FLAGS.split())
        context = chromium.new_context(viewport={"width": 1600, "height": 1000})
        context.set_default_timeout(WAIT)
        context.add_init_script(
            "".join(f"localStorage.setItem({name!r}, {value!r});" for name, value in SEEN_BEFORE.items())
        )
        yield context
        chromium.close()


@pytest.fixture
def page(browser):
    opened = browser.new_page()
    yield opened
    opened.close()


def runs_page(server: str, swept: Swept, more: str = "") -> str:
    return f"{server}/#/experiments/{swept.experiment}/runs?workflowType=machine_learning{more}"


def view_page(server: str, swept: Swept, name: str, mode: str) -> str:
    return runs_page(server, swept, f"&viewStateShareKey={swept.views[name]}&compareRunsMode={mode}")


def open_leaderboard(page, server, swept):
    page.goto(view_page(server, swept, "Leaderboard: tiny-sweep", "TABLE"))
    page.locator(".ag-row").nth(len(swept.trials) - 1).wait_for()


def rows(page) -> list[str]:
    """The run ids of the table's rows, from the top."""
    found = page.locator(".ag-pinned-left-cols-container .ag-row").evaluate_all(
        "rows => rows.sort((a, b) => a.getAttribute('row-index') - b.getAttribute('row-index'))"
        ".map(row => row.getAttribute('row-id'))"
    )
    return [row for row in found if re.fullmatch("[0-9a-f]{32}", row)]


def test_the_trials_are_nested_under_the_sweep(page, server, swept):
    page.goto(runs_page(server, swept))
    page.locator(f"[row-id='{swept.parent}']").first.wait_for()
    assert rows(page) == [swept.parent]
    page.locator(f"[row-id='{swept.parent}'] button").first.click()
    page.locator(".ag-pinned-left-cols-container .ag-row").nth(len(swept.trials)).wait_for()
    assert rows(page)[0] == swept.parent
    assert set(rows(page)[1:]) == set(swept.trials)


def test_the_printed_link_opens_the_leaderboard(page, server, swept):
    (link,) = re.findall(r"see it +(http\S+)", swept.printed)
    page.goto(link)
    page.locator(".ag-row").nth(len(swept.trials) - 1).wait_for()
    ranked = [swept.trials[run] for run in rows(page)]
    assert len(ranked) == len(swept.trials), "the parent is no part of the leaderboard"
    assert ranked == sorted(ranked, reverse=True)
    assert ranked[0] > ranked[-1]
    headers = page.locator(".ag-header-cell").all_inner_texts()
    # A metric's column of which no run has a value is not shown.
    shown = ["best_val_accuracy", "final_val_accuracy", "activation", "learning_rate", "seed"]
    assert [header for header in headers if header in shown] == shown
    assert page.locator("a", has_text="tiny-sweep").first.get_attribute("href").endswith("machine_learning")


def test_the_curves_are_lines_by_epoch_with_a_band_for_each_value(page, server, swept):
    page.goto(view_page(server, swept, "Curves by activation: tiny-sweep", "CHART"))
    page.locator(".js-plotly-plot").nth(2).wait_for()
    page.get_by_text("relu (val_accuracy)").first.wait_for()
    plots = page.evaluate(PLOTS)
    assert len(plots) == 3, "a chart each for val_accuracy, val_loss and train_accuracy"
    epochs = list(range(1, EPOCHS + 1))
    assert plots == [{"step": "Step", "lines": [epochs, epochs], "bands": 2, "axes": []}] * 3


def test_compare_draws_parallel_coordinates_of_the_swept_parameters(page, server, swept):
    open_leaderboard(page, server, swept)
    for run in swept.trials:
        page.locator(f"[row-id='{run}'] input.ag-checkbox-input").check()
    page.get_by_test_id("runs-compare-button").click()
    page.get_by_text("Comparing 4 Runs from 1 Experiment").wait_for()
    page.locator(".js-plotly-plot").first.wait_for()
    assert page.evaluate(PLOTS)[0]["axes"] == ["activation", "learning_rate", "val_accuracy"]
    page.locator("input[aria-description='val_accuracy']").click(force=True)
    page.locator("[class*='select-item-option-content']", has_text="best_val_accuracy").click()
    page.wait_for_function(
        "document.querySelector('.js-plotly-plot').data[0].dimensions.some(axis => axis.label === 'best_val_accuracy')"
    )


def test_a_trial_shows_its_pictures(page, server, swept):
    page.goto(f"{server}/#/experiments/{swept.experiment}/runs/{next(iter(swept.trials))}/artifacts")
    for picture in ("confusion_matrix.png", "curves.png"):
        page.get_by_text(picture, exact=True).first.click()
        page.wait_for_function(
            f"[...document.images].some(image => image.alt === '{picture}' && image.naturalWidth > 300)"
        )


def test_the_system_metrics_tab_fills(page, server, tiny, monkeypatch):
    words = ("--dataset", tiny, "--experiment", "watched", "--epochs", "2", "--batch-size", "8", "--scheduler", "none")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server)
    monkeypatch.setenv("MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL", "0.1")
    done = run_here("train", *words, "--system-metrics")
    assert done.code == 0, done.output
    client = MlflowClient(server)
    (run,) = client.search_runs([client.get_experiment_by_name("watched").experiment_id])
    page.goto(
        f"{server}/#/experiments/{run.info.experiment_id}/runs/{run.info.run_id}/system-metrics"
        "?workflowType=machine_learning"
    )
    page.get_by_text("cpu_utilization_percentage").first.wait_for()
    page.locator(".js-plotly-plot").first.wait_for()
    drawn = page.evaluate(
        "[...document.querySelectorAll('.js-plotly-plot')].flatMap(plot => plot.data.map(trace => [...trace.x].length))"
    )
    assert drawn
    assert max(drawn) > 1, "a line of several samples"
