"""The rules of a promotion, on numbers."""

import numpy as np
import pytest
from scipy import stats

from cifar_mlflow.analysis import gates
from cifar_mlflow.analysis.gates import Rivals


def rivals(only_new, only_champion, both=500, neither=20):
    new = np.repeat([True, True, False, False], [both, only_new, only_champion, neither])
    champion = np.repeat([True, False, True, False], [both, only_new, only_champion, neither])
    return Rivals.count(new, champion)


def test_images_are_counted_by_who_was_right():
    counted = rivals(7, 3)
    assert (counted.images, counted.both, counted.only_new, counted.only_champion) == (530, 500, 7, 3)
    exact = stats.binomtest(7, 10, 0.5).pvalue
    assert counted.p == pytest.approx(exact - stats.binom.pmf(7, 10, 0.5))


@pytest.mark.parametrize(
    ("only_new", "only_champion", "verdict", "not_worse", "better"),
    [
        (0, 0, "not distinguishable", True, False),
        (30, 32, "not distinguishable", True, False),
        (60, 20, "better", True, True),
        (20, 60, "worse", False, False),
    ],
)
def test_the_two_rules(only_new, only_champion, verdict, not_worse, better):
    counted = rivals(only_new, only_champion)
    assert counted.verdict(0.05) == verdict
    for require, passes in (("not-worse", not_worse), ("better", better)):
        gate = gates.champion(counted, require, 0.05, "version 3")
        assert gate.passed is passes
        assert "tie" in gate.required
        assert f"{only_new} and {only_champion}" in gate.observed


@pytest.mark.parametrize(
    ("only_new", "only_champion", "margin", "passed", "said"),
    [
        (300, 300, 0.5, True, "difference +0.00, 95% interval -0.48 to +0.48: no more than 0.5 points below"),
        (300, 300, 0.4, False, "cannot be told; for two equal models that disagree on as many it takes 29,434 images"),
        (290, 310, 0.5, False, "cannot be told"),
        (200, 400, 0.5, False, "difference -2.00, 95% interval -2.48 to -1.53: more than 0.5 points below"),
        (0, 0, 0.5, True, "no more than"),
    ],
)
def test_a_margin_asks_for_proof_that_it_is_not_worse_by_more(only_new, only_champion, margin, passed, said):
    gate = gates.champion(rivals(only_new, only_champion, 9000, 400), "not-worse", 0.05, "version 3", margin)
    assert gate.passed is passed
    assert said in gate.observed
    assert f"above -{margin} points" in gate.required


def test_significance_decides():
    counted = rivals(20, 35)
    assert 0.01 < counted.p < 0.05
    assert gates.champion(counted, "not-worse", 0.05, "version 3").passed is False
    assert gates.champion(counted, "not-worse", 0.01, "version 3").passed is True


@pytest.mark.parametrize(("offset", "passed"), [(0, True), (9e-5, True), (2e-4, False)])
def test_answers_may_differ_by_the_tolerance(offset, passed):
    expected = np.full((4, 3), 1 / 3, dtype=np.float32)
    answered = expected.copy()
    answered[2, 1] += offset
    gate = gates.smoke(expected, answered, 1.5, 2.0)
    assert gate.passed is passed
    assert "1.5 s" in gate.observed
    assert gates.smoke(expected, answered[:, :2], 1.5, 2.0).passed is False


def test_answers_that_are_no_numbers_do_not_pass():
    expected = np.full((1, 2), 0.5, dtype=np.float32)
    assert gates.smoke(expected, np.array([[np.nan, 0.5]], dtype=np.float32), 1, 1).passed is False


def test_bars():
    assert gates.accuracy(90.0, 90).passed is True
    assert gates.accuracy(89.99, 90).passed is False
    assert gates.accuracy(10.0, None).passed is None
    recall = np.array([95.0, 60.0, np.nan])
    assert gates.class_recall(recall[:2], ("cat", "dog"), 60).passed is True
    failed = gates.class_recall(recall[:2], ("cat", "dog"), 70)
    assert (failed.passed, failed.observed) == (False, "below: dog 60.0%")
    unknown = gates.class_recall(recall, ("cat", "dog", "owl"), 60)
    assert (unknown.passed, unknown.observed) == (False, "the lowest is dog: 60.0%; no image of: owl")
    assert gates.class_recall(recall, ("cat", "dog", "owl"), None).passed is None
    assert "dog" in gates.class_recall(recall, ("cat", "dog", "owl"), None).observed


def test_a_table_in_markdown_survives_a_name_with_a_bar():
    text = gates.markdown([gates.Gate("a|b", "x", "y", True)])
    assert text.splitlines()[2] == r"| a\|b | passed | y | x |"
