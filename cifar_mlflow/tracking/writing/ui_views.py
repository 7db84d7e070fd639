"""What MLflow's own UI shows first: saved views, the experiment's description, a colour for each configuration.

MLflow documents none of these formats, so they are built here and nowhere else; tests/end_to_end/test_browser.py
opens them in a browser.
"""

import base64
import bisect
import colorsys
import hashlib
import json
import re
import time
import zlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

from cifar_mlflow.config.training import NOT_IN_FINGERPRINT, TrainingConfig
from cifar_mlflow.tracking.queries import TRAINED
from cifar_mlflow.tracking.store import Store, redact

COLOR_TAG = "mlflow.runColor"
NOTE_TAG = "mlflow.note.content"
VIEW_TAG = "mlflow.sharedViewState."
PREFIX = "cifar-mlflow."  # of our views' keys; a view that a user saved has a UUID
LEADERBOARD = "leaderboard"
MAX_VIEWS = 30  # of ours; MLflow saves no further view when there are 40
MAX_COLUMNS = 6
RUNS_READ = 200  # how many of the newest runs are asked for the values of their parameters
# The description that we write; one that does not match was written by a user.
OUR_NOTE = "Image classification: accuracies are in per cent, a step is an epoch. Leaderboards: {}."
LOCAL_UI = "http://127.0.0.1:5000"  # where `mlflow ui` serves
USUAL_PARAMETERS = ("activation", "optimizer", "learning_rate")


def publish_views(
    store: Store,
    experiment_id: str,
    swept_parameters: Sequence[str] = (),
    *,
    sweep: str | None = None,
    trains_on_all: bool = False,
) -> dict[str, str]:
    """Saves the leaderboard and the curves of the sweep of that name, or of all runs of the experiment.

    Called again, it brings the views up to date; it changes nothing that users have saved or described. Without
    `swept_parameters` the views show those in which the experiment's runs differ. With `trains_on_all` the curves
    are the test set's, since there is no validation. Returned is the key of each view by its name, for `view_url`;
    the leaderboard is the first.
    """
    client = store.client
    runs_shown = f"tags.sweep = '{sweep}' and tags.kind = 'trial'" if sweep else TRAINED
    runs = client.search_runs([experiment_id], runs_shown, max_results=RUNS_READ)
    settings = [run.data.params for run in runs]
    parameters = list(swept_parameters) or _varying(settings)
    tags = dict(client.get_experiment(experiment_id).tags)
    saved = {}
    now = int(time.time() * 1000)
    for place, (key, name, state) in enumerate(_views(parameters, settings, runs_shown, sweep, trains_on_all)):
        saved[name] = key
        # The menu lists the newest first, so the first view is given the latest time.
        value = _envelope(name, state, now - place, tags.get(VIEW_TAG + key))
        if value != tags.get(VIEW_TAG + key):
            client.set_experiment_tag(experiment_id, VIEW_TAG + key, value)
            tags[VIEW_TAG + key] = value
    for tag in _surplus(tags, keep=saved.values()):
        client.delete_experiment_tag(experiment_id, tag)
        del tags[tag]
    _describe(store, experiment_id, tags)
    return saved


def view_url(store: Store, experiment_id: str, key: str) -> str:
    """The link that opens a saved view; for a store that is no server, once `mlflow ui` runs."""
    base = redact(store.uri.rstrip("/")) if store.uri.startswith("http") else LOCAL_UI
    return f"{base}/{_view_path(experiment_id, key)}"


def latest_leaderboard(store: Store, experiment_id: str) -> str:
    """The path of the leaderboard that was brought up to date last; of MLflow's own list if there is none."""
    tags = store.client.get_experiment(experiment_id).tags
    ours = [tag for tag in tags if tag.startswith(VIEW_TAG + PREFIX) and tag.endswith(LEADERBOARD)]
    if not ours:
        return f"#/experiments/{experiment_id}/runs?workflowType=machine_learning"
    latest = max(ours, key=lambda tag: json.loads(tags[tag])["updatedAt"])
    return _view_path(experiment_id, latest.removeprefix(VIEW_TAG))


def run_color(config_fingerprint: str) -> str:
    """The colour of all runs of one configuration, #rrggbb: the same for each seed, dark or bright enough to be
    read on both a white and a dark page."""
    digest = hashlib.sha256(config_fingerprint.encode()).digest()
    hue, saturation = int.from_bytes(digest[:2]) / 65536, (0.55, 0.95)[digest[2] % 2]
    # WCAG's contrast with white and with MLflow's dark grey is 3 or more between these two.
    target = (0.14, 0.20, 0.28)[digest[3] % 3]
    fine = 2**20  # steps from black to white
    step = bisect.bisect_left(range(1, fine), target, key=lambda step: _luminance(hue, step / fine, saturation))
    channels = colorsys.hls_to_rgb(hue, step / fine, saturation)
    return "#" + "".join(f"{round(channel * 255):02x}" for channel in channels)


def _luminance(hue: float, lightness: float, saturation: float) -> float:
    linear = [
        channel / 12.92 if channel <= 0.04045 else ((channel + 0.055) / 1.055) ** 2.4
        for channel in colorsys.hls_to_rgb(hue, lightness, saturation)
    ]
    return sum(weight * channel for weight, channel in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def _views(
    parameters: Sequence[str],
    settings: Sequence[Mapping[str, str]],
    runs_shown: str,
    sweep: str | None,
    trains_on_all: bool,
) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """The key, name and state of each view."""
    title = sweep or "all runs"
    key = f"{PREFIX}sweep.{sweep}." if sweep else f"{PREFIX}all."
    split = "epoch_test" if trains_on_all else "val"
    accuracies = ["epoch_test_accuracy"] if trains_on_all else ["best_val_accuracy", "final_val_accuracy"]
    curves = [_line(metric) for metric in (f"{split}_accuracy", f"{split}_loss", "train_accuracy")]
    common = {
        "searchFilter": runs_shown,
        "orderByKey": f"metrics.`{accuracies[0]}`",
        "orderByAsc": False,
        "runsHiddenMode": "SHOW_ALL",
        "compareRunSections": _SECTIONS,
    }
    shown = parameters[:MAX_COLUMNS]
    axes = {"selectedParams": shown, "selectedMetrics": accuracies[:1], "showAllRuns": True}
    leaderboard = {
        **common,
        **_columns([*shown, "seed"], [*accuracies, "test_accuracy"]),
        "groupBy": None,
        "compareRunCharts": [{**_card("PARALLEL", "parallel"), **axes}, curves[0]],
    }
    yield key + LEADERBOARD, f"Leaderboard: {title}", leaderboard
    groupings = {"curves": parameters} | ({f"by.{name}": [name] for name in shown} if len(parameters) > 1 else {})
    for suffix, grouping in groupings.items():
        groups = {tuple(f"param.{name}.{values.get(name, 'null')}" for name in grouping) for values in settings}
        by = [{"mode": "param", "groupByData": name} for name in grouping]
        grouped = {
            **common,
            **_columns([], [*accuracies, "train_accuracy"]),
            "groupBy": {"aggregateFunction": "average", "groupByKeys": by},
            # Collapsed, so that the list of groups is a legend of the charts.
            "groupsExpanded": {",".join(group): False for group in sorted(groups)},
            "compareRunCharts": curves,
        }
        yield key + suffix, f"Curves by {', '.join(grouping)}: {title}", grouped


def _columns(parameters: Sequence[str], metrics: Sequence[str]) -> dict[str, Any]:
    # The scores come first: on a laptop's screen, with MLflow's assistant open, there is room for two columns.
    columns = [*(f"metrics.`{name}`" for name in metrics), *(f"params.`{name}`" for name in parameters)]
    return {
        "selectedColumns": columns,
        "columnOrder": ["attributes.`Run Name`", *columns, "duration", "runDateAndNestInfo"],
        # The usual width cuts a name such as final_val_accuracy.
        "columnWidths": {"attributes.`Run Name`": 260, **{f"metrics.`{name}`": 150 for name in metrics}},
    }


_KEPT = {"deleted": False, "isGenerated": False}
# MLflow adds a chart for every other metric to "Model metrics", which stays closed.
_SECTIONS = [
    {"uuid": key, "name": name, "display": key == "curves", "isReordered": False, **_KEPT}
    for key, name in (("curves", "Learning curves"), ("other", "Model metrics"), ("system", "System metrics"))
]


def _line(metric: str) -> dict[str, Any]:
    return {
        **_card("LINE", f"line-{metric}"),
        "metricKey": metric,
        "selectedMetricKeys": [metric],
        "xAxisKey": "step",
        "xAxisScaleType": "linear",
        "scaleType": "linear",
        "yAxisKey": "metric",
        "lineSmoothness": 0,
        "range": {},
        "useGlobalXaxisKey": True,
        "useGlobalLineSmoothing": True,
    }


def _card(kind: str, name: str) -> dict[str, Any]:
    return {"uuid": name, "type": kind, "metricSectionId": "curves", **_KEPT}


def _envelope(name: str, state: Mapping[str, Any], now: int, before: str | None) -> str:
    """The value of a view's tag; `before` itself if it says the same."""
    packed = "deflate;" + base64.b64encode(zlib.compress(json.dumps(state).encode(), 9)).decode()
    old = json.loads(before) if before else {}
    if before and (old["name"], old["state"]) == (name, packed):
        return before
    return json.dumps({"name": name, "createdAt": old.get("createdAt", now), "updatedAt": now, "state": packed})


def _surplus(tags: Mapping[str, str], keep: Collection[str]) -> list[str]:
    """The tags of our oldest views beyond MAX_VIEWS."""
    ours = [tag for tag in tags if tag.startswith(VIEW_TAG + PREFIX)]
    old = sorted(ours, key=lambda tag: json.loads(tags[tag])["updatedAt"])
    removable = [tag for tag in old if tag.removeprefix(VIEW_TAG) not in keep]
    return removable[: max(0, len(ours) - MAX_VIEWS)]


def _varying(settings: Sequence[Mapping[str, str]]) -> list[str]:
    """The parameters in which runs differ, but for those that are no part of a configuration."""
    names = [name for name in TrainingConfig.model_fields if name not in NOT_IN_FINGERPRINT]
    varying = [name for name in names if len({values[name] for values in settings if name in values}) > 1]
    return varying[:MAX_COLUMNS] or list(USUAL_PARAMETERS)


def _describe(store: Store, experiment_id: str, tags: Mapping[str, str]) -> None:
    """The experiment's description, with links to our views, unless a user has written one."""
    before = tags.get(NOTE_TAG, "")
    start, end = map(re.escape, OUR_NOTE.split("{}"))
    if before and not re.fullmatch(rf"{start}(\[[^\]]+\]\([^)]+\)(, )?)+{end}", before):
        return
    links = sorted(
        f"[{json.loads(value)['name'].partition(': ')[2]}]({_view_path(experiment_id, tag.removeprefix(VIEW_TAG))})"
        for tag, value in tags.items()
        if tag.startswith(VIEW_TAG + PREFIX) and tag.endswith(LEADERBOARD)
    )
    text = OUR_NOTE.format(", ".join(links))
    if text != before:
        store.client.set_experiment_tag(experiment_id, NOTE_TAG, text)


def _view_path(experiment_id: str, key: str) -> str:
    mode = "TABLE" if key.endswith(LEADERBOARD) else "CHART"
    query = f"viewStateShareKey={key}&compareRunsMode={mode}&workflowType=machine_learning"
    return f"#/experiments/{experiment_id}/runs?{query}"
