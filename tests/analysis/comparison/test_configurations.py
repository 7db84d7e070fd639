"""Which runs are one configuration, and which of its runs are evidence."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from cifar_mlflow.analysis.comparison import wording
from cifar_mlflow.analysis.comparison.verdicts import Comparison, compare
from cifar_mlflow.records import RunRecord

MakeRun = Callable[..., RunRecord]


def said(comparison: Comparison) -> str:
    return "\n".join(wording.notes(comparison))


# ------------------------------------------------------------------------------------- what one configuration is


def test_other_data_and_another_network_are_other_configurations(make_run: MakeRun) -> None:
    tags = [{"dataset_digest": "old" * 5}, {"dataset_digest": "new" * 5}]
    runs = [make_run(value, seed, tags=tags[seed // 2]) for seed, value in enumerate([100.0, 100.0, 50.0, 50.0])]
    comparison = compare(runs)
    assert [(row.summary.n, row.summary.mean) for row in comparison.rows] == [(2, 100.0), (2, 50.0)]
    labels = [wording.label(row, comparison.columns) for row in comparison.rows]
    assert labels == ["dataset_digest oldoldol", "dataset_digest newnewne"]
    edited = [make_run(70.0, seed, tags={"dataset_digest": "d", "network_digest": f"n{seed}"}) for seed in (0, 1)]
    assert compare(edited).columns == ("network_digest",)
    # Where a parameter sets the data apart, their digest would say nothing new.
    splits = [
        make_run(70.0, tags={"dataset_digest": str(size)}, parameters={"validation_size": size}) for size in (100, 200)
    ]
    assert compare(splits).columns == ("validation_size",)


def test_copies_of_one_file_are_one_dataset(make_run: MakeRun) -> None:
    runs = [
        make_run(70.0 + seed, seed, tags={"dataset_digest": digest}, parameters={"dataset": path})
        for seed, digest, path in ((0, "a", "/first.npz"), (1, "a", "/second.npz"), (2, "b", "/third.npz"))
    ]
    comparison = compare(runs)
    assert [(row.parameters["dataset"], row.summary.n) for row in comparison.rows] == [
        ("/third.npz", 1),
        ("/first.npz", 2),
    ]


def test_a_row_says_where_its_runs_differ_in_more_than_the_seed(make_run: MakeRun) -> None:
    runs = [
        make_run(70.0 + seed, seed, parameters={"a": a}, tags={"git_commit": f"{commit}" * 40, "precision_used": used})
        for a, seed, commit, used in (
            (0, 0, 0, "float32"), (0, 1, 0, "float32"), (1, 0, 0, "bfloat16"), (1, 1, 1, "float32"),
        )
    ]  # fmt: skip
    assert (
        "Not by seed alone differ the runs of a 1: git_commit (00000000, 11111111); precision_used (bfloat16, float32)."
        in said(compare(runs))
    )
    assert "Not by seed alone differ the runs of a 0" not in said(compare(runs))


# ------------------------------------------------------------------------------------------- successive halving


def test_what_a_pruner_chose_by_a_seed_is_judged_by_the_others(make_run: MakeRun) -> None:
    lucky = {"chosen_by_seed": "true"}
    runs = [
        make_run(value, seed, tags={} if seed else lucky, parameters={"activation": name})
        for name, values in (("relu", [79.0, 70.0, 70.4]), ("elu", [75.0, 72.0, 72.2]))
        for seed, value in enumerate(values)
    ]  # fmt: skip
    comparison = compare(runs)
    assert [(row.parameters["activation"], row.values) for row in comparison.rows] == [
        ("elu", (72.0, 72.2)),
        ("relu", (70.0, 70.4)),
    ]
    assert "chose 2 configurations by seed 0, which was lucky therefore" in said(comparison)
    alone = compare([make_run(79.0, tags=lucky)])
    assert [row.verdict.kind for row in alone.rows] == ["one run"]
    assert "nothing can be said of its value" in said(alone)
    # The same seed run by hand is the same lucky one.
    by_hand = compare([make_run(79.0, parameters={"activation": "relu"}), *runs[:3]])
    assert by_hand.rows[0].values == (70.0, 70.4)


def test_the_lucky_seed_would_lift_the_mean_of_what_halving_keeps(make_run: MakeRun) -> None:
    """Of 16 equal configurations the best four by their first seed are kept: their means must be the truth's."""
    generator = np.random.default_rng(0)
    means = []
    for _ in range(100):
        values = generator.normal(76, 0.7, (16, 3))
        runs = [
            make_run(value, seed, tags={} if seed else {"chosen_by_seed": "true"}, parameters={"a": int(a)})
            for a in np.argsort(-values[:, 0])[:4] for seed, value in enumerate(values[a].tolist())
        ]  # fmt: skip
        means += [row.summary.mean for row in compare(runs).rows]
    assert np.mean(means) == pytest.approx(76, abs=0.1)
