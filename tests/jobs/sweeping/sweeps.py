"""What the sweeps of the tests are, and what they must come to."""

from __future__ import annotations

import csv
import io
from collections import Counter
from pathlib import Path

BASE = {"epochs": 2, "batch_size": 8, "scheduler": "none", "precision": "float32"}
SPACE = {"activation": ["relu", "elu"], "learning_rate": [0.002, 0.01]}


def comparable(results: Path) -> list[dict[str, str]]:
    """The table in results.csv, without what differs between any two sweeps: run ids and times."""
    rows = list(csv.DictReader(io.StringIO(results.read_text())))
    return [{key: value for key, value in row.items() if key not in ("minutes", "run_ids")} for row in rows]


def trained_once(found) -> bool:
    """Whether no configuration was trained to the end twice with the same seed."""
    counts = Counter(run.data.tags["run_fingerprint"] for run in found if run.info.status == "FINISHED")
    return set(counts.values()) == {1}
