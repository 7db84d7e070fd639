"""Makes comparison.png, leaderboard.png, mlflow-curves.png and mlflow-version.png in docs/images/, in Chromium.

They show a real sweep, and a promotion that is refused.

python docs/screenshots.py    # with the packages of the tests; takes three minutes
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from pathlib import Path

from PIL import Image
from playwright.sync_api import Page, sync_playwright

import cifar_mlflow as cm
from cifar_mlflow.jobs.browsing.server import serving

ROOT = Path(__file__).parents[1]
IMAGES = ROOT / "docs" / "images"
MOST_BYTES = 300_000
PORT = 5037
SIZE = {"width": 1280, "height": 640}
COMPARISON, VERSION = 925, 720  # heights at which the one's intervals, and all gates of the other, are seen
FLAGS = "--no-sandbox --disable-gpu --no-first-run --disable-background-networking --disable-component-update"
# What a first visit would be greeted with.
SEEN_BEFORE = {
    "mlflow.assistant.fab.autoOpenedOnFirstLoad_v1": "true",
    "mlflow.assistant.panelOpen_v1": "false",
    "_mlflow_model_registry_promo_modal_dismissed_v1": "true",
}


def views(experiment_id: str) -> dict[str, str]:
    """Name of each saved view of the experiment to its key."""
    from mlflow import MlflowClient

    prefix = "mlflow.sharedViewState."
    tags = MlflowClient("sqlite:///mlflow.db").get_experiment(experiment_id).tags
    return {
        json.loads(value)["name"]: tag.removeprefix(prefix) for tag, value in tags.items() if tag.startswith(prefix)
    }


def taken(page: Page, name: str, *, height: int | None = None) -> None:
    """Saves what the page shows, in 256 colours, which nobody sees and which make it small."""
    page.wait_for_timeout(1500)  # until charts have come to rest
    path = IMAGES / f"{name}.png"
    clip = {"x": 0, "y": 0, "width": SIZE["width"], "height": height or SIZE["height"]}
    page.screenshot(path=path, clip=clip)
    Image.open(path).convert("RGB").quantize(256, dither=Image.Dither.NONE).save(path, optimize=True)
    assert path.stat().st_size <= MOST_BYTES, path
    print(f"{path.relative_to(ROOT)}: {path.stat().st_size // 1000} kB")


def main() -> None:
    sweep = cm.sweep(ROOT / "experiments" / "quick.yaml", progress=True)
    print(sweep.comparison)
    Path("comparison.html").write_text(sweep.comparison.to_html(), encoding="utf-8")
    assert sweep.winner is not None
    cm.promote(best_of=sweep, progress=False)
    (worst, *_) = sweep.comparison.judged.rows[-1].runs
    refused = cm.promote(worst.run_id, min_class_recall=80, progress=False)
    print(refused.sentence)
    experiment_id = sweep.url.partition("/experiments/")[2].partition("/")[0]
    with serving(PORT) as (address, _), sync_playwright() as started:
        chromium = shutil.which("chromium") or shutil.which("google-chrome")
        browser = started.chromium.launch(executable_path=chromium, args=FLAGS.split())
        context = browser.new_context(viewport=SIZE)
        context.set_default_timeout(90_000)
        for name, value in SEEN_BEFORE.items():
            context.add_init_script(f"localStorage.setItem({name!r}, {value!r});")
        page = context.new_page()
        page.goto(address)
        page.locator(".ag-row").nth(3).wait_for()
        taken(page, "leaderboard")
        curves = views(experiment_id)["Curves by activation: quick"]
        page.goto(f"{address.partition('/#')[0]}/#/experiments/{experiment_id}/runs?workflowType=machine_learning"
                  f"&viewStateShareKey={curves}&compareRunsMode=CHART")  # fmt: skip
        page.locator(".js-plotly-plot").nth(2).wait_for()
        page.set_viewport_size({**SIZE, "height": 860})
        taken(page, "mlflow-curves", height=860)
        page.set_viewport_size(SIZE)
        page.goto(f"{address.partition('/#')[0]}/#/models/digits/versions/2?workflowType=machine_learning")
        page.get_by_text("was refused").wait_for()
        page.set_viewport_size({**SIZE, "height": VERSION})
        taken(page, "mlflow-version", height=VERSION)
        page.set_viewport_size({**SIZE, "height": COMPARISON})
        page.goto(Path("comparison.html").absolute().as_uri())
        taken(page, "comparison", height=COMPARISON)
        browser.close()


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as work:
        os.chdir(work)
        os.environ.pop("MLFLOW_TRACKING_URI", None)
        main()
