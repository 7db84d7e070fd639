from __future__ import annotations

import math
import warnings

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st
from statsmodels.stats.contingency_tables import mcnemar as reference_mcnemar
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.power import TTestIndPower
from statsmodels.stats.proportion import proportion_confint

from cifar_mlflow.analysis.statistics import (
    bounds_of,
    mcnemar,
    mean_interval,
    moderated_tests,
    moderated_variances,
    pairwise_tests,
    rounding_variance,
    seeds_needed,
    shaffer,
    typical_sd,
    wilson_interval,
)

# Accuracies as runs have them: per cent of 5,000 images.
accuracy = st.integers(0, 5000).map(lambda correct: correct / 50)
several = st.lists(accuracy, min_size=2, max_size=12)
spread_out = several.filter(lambda values: len(set(values)) > 1)
confidence = st.floats(0.5, 0.999)


@settings(deadline=None)
@given(spread_out, confidence)
def test_mean_interval_is_scipys(values: list[float], level: float) -> None:
    ours = mean_interval(values, level)
    reference = scipy.stats.t.interval(level, len(values) - 1, np.mean(values), scipy.stats.sem(values))
    assert (ours.low, ours.high) == pytest.approx(reference, abs=1e-8)
    assert ours.mean == pytest.approx(np.mean(values))
    assert ours.sd == pytest.approx(np.std(values, ddof=1))
    assert ours.n == len(values)


def test_one_value_has_no_interval() -> None:
    assert mean_interval([76.3]) == mean_interval([76.3], 0.5)
    assert (mean_interval([76.3]).low, mean_interval([76.3]).high, mean_interval([76.3]).sd) == (None, None, None)


@pytest.mark.parametrize(
    ("metric", "values", "expected"),
    [
        ("val_accuracy", [99.0, 100.0], (93.15, 100.0)),
        ("final_val_accuracy", [0.0, 1.0], (0.0, 6.85)),
        ("val_loss", [0.0, 1.0], (0.0, 6.85)),
        ("seconds", [0.0, 1.0], (-5.85, 6.85)),
    ],
)
def test_an_interval_ends_where_no_value_can_lie(metric, values, expected) -> None:
    ours = mean_interval(values, bounds=bounds_of(metric))
    assert (ours.low, ours.high) == pytest.approx(expected, abs=0.01)


@pytest.mark.parametrize("values", [[], [1.0, math.nan], [math.inf]])
def test_values_must_be_there_and_finite(values: list[float]) -> None:
    with pytest.raises(ValueError, match="finite"):
        mean_interval(values)
    with pytest.raises(ValueError, match="finite"):
        pairwise_tests([[1.0, 2.0], values])


@settings(deadline=None)
@given(st.integers(1, 20000), st.floats(0, 1), confidence)
def test_wilson_interval_is_statsmodels(n: int, share: float, level: float) -> None:
    successes = round(share * n)
    reference = proportion_confint(successes, n, alpha=1 - level, method="wilson")
    assert wilson_interval(successes, n, level) == pytest.approx(reference, abs=1e-9)


@pytest.mark.parametrize(("successes", "n"), [(1, 0), (-1, 10), (11, 10)])
def test_wilson_interval_refuses_impossible_counts(successes: int, n: int) -> None:
    with pytest.raises(ValueError, match="successes"):
        wilson_interval(successes, n)


@settings(max_examples=40, deadline=None)
@given(spread_out, spread_out)
def test_of_two_groups_nothing_is_lent_and_the_test_is_welchs_or_more_careful(
    first: list[float], second: list[float]
) -> None:
    welch = scipy.stats.ttest_ind(first, second, equal_var=False).pvalue
    ours = pairwise_tests([first, second])
    assert ours[0, 1] == ours[1, 0]
    assert ours[0, 1] == pytest.approx(welch) if len(first) == len(second) else ours[0, 1] >= welch - 1e-12


@settings(max_examples=40, deadline=None)
@given(st.lists(spread_out, min_size=2, max_size=6))
def test_all_pairs_are_corrected_together(groups: list[list[float]]) -> None:
    means, variances = (np.array([of(group) for group in groups]) for of in (np.mean, lambda x: np.var(x, ddof=1)))
    raw = moderated_tests(means, variances, np.array([len(group) for group in groups]))
    ours = pairwise_tests(groups)
    assert ours[np.triu_indices(len(groups), 1)] == pytest.approx(shaffer(raw), abs=1e-9)
    assert np.array_equal(ours, ours.T)


def test_variances_that_agree_lend_one_another_what_those_that_differ_do_not() -> None:
    degrees = np.full(8, 2.0)
    agree = np.array([0.4, 1.1, 0.9, 1.6, 0.7, 1.3, 0.8, 1.2])
    moderated, with_prior = moderated_variances(agree, degrees)
    assert np.ptp(moderated) < np.ptp(agree) / 4
    assert with_prior.min() > 9
    differ = np.array([0.01, 0.02, 0.01, 0.03, 9.0, 11.0, 8.0, 100.0])
    moderated, with_prior = moderated_variances(differ, degrees)
    assert with_prior.max() < 5
    # Some groups of wide spread may look narrow by chance: no narrow one is believed.
    assert moderated[0] > 1


def test_groups_of_two_values_borrow_one_degree_at_most() -> None:
    _, with_prior = moderated_variances(np.full(20, 0.5), np.full(20, 1.0))
    assert with_prior.max() == 2.0


def test_a_batch_of_comparisons_is_judged_as_each_alone() -> None:
    generator = np.random.default_rng(0)
    sizes = np.array([2, 3, 10])
    means, variances = generator.normal(76, 1, (5, 3)), generator.gamma(1, 1, (5, 3))
    batch = shaffer(moderated_tests(means, variances, sizes))
    alone = [shaffer(moderated_tests(mean, variance, sizes)) for mean, variance in zip(means, variances, strict=True)]
    assert batch == pytest.approx(np.array(alone))


def test_few_coarse_values_that_agree_are_not_taken_for_certain() -> None:
    floor = rounding_variance(143)
    assert floor == pytest.approx((100 / 143) ** 2 / 12)
    agreeing, others = [97.90, 97.90], [97.2, 97.9, 98.6, 97.9, 96.5, 97.2, 96.5, 97.2, 97.2, 97.2]
    assert pairwise_tests([agreeing, others])[0, 1] < 0.2 < pairwise_tests([agreeing, others], floor)[0, 1]
    interval = mean_interval(agreeing, floor=floor)
    assert (interval.sd, interval.low, interval.high) == (
        0.0,
        pytest.approx(96.085, abs=0.01),
        pytest.approx(99.715, abs=0.01),
    )
    unknown = mean_interval(agreeing)
    assert (unknown.n, unknown.sd, unknown.low, unknown.high) == (2, 0.0, None, None)
    with pytest.raises(ValueError, match="images"):
        rounding_variance(0)


@pytest.mark.parametrize(
    "factors", [[1], [3, 1, 1], [6, 3, 3, 3, 2, 1], [10, 6, 6, 6, 6, 4, 4, 3, 2, 1]]
)  # of 2, 3, 4 and 5 groups, as in Shaffer's paper
def test_shaffer_takes_as_many_pairs_as_can_be_equal(factors: list[int]) -> None:
    p_values = 1e-9 * 2.0 ** np.arange(len(factors))
    steps = [*zip(factors, p_values, strict=True)]
    expected = [max(factor * p for factor, p in steps[: place + 1]) for place in range(len(steps))]
    assert shaffer(p_values[::-1]) == pytest.approx(expected[::-1], rel=1e-9)


@settings(max_examples=40, deadline=None)
@given(
    st.integers(2, 8).flatmap(lambda k: st.lists(st.floats(0, 1), min_size=k * (k - 1) // 2, max_size=k * (k - 1) // 2))
)
def test_shaffer_is_holm_or_finds_more(p_values: list[float]) -> None:
    ours, holm = shaffer(p_values), multipletests(p_values, method="holm")[1]
    assert np.all(ours <= holm + 1e-12)
    assert np.all(ours >= p_values)
    assert ours.min() == pytest.approx(holm.min(), abs=1e-12)


@pytest.mark.parametrize("p_values", [[0.5, math.nan, 0.5], [0.5, 1.5, 0.5], [0.5, 0.5]])
def test_shaffer_refuses_what_is_no_probability_of_all_pairs(p_values: list[float]) -> None:
    with pytest.raises(ValueError, match="p-values"):
        shaffer(p_values)


def test_single_runs_are_not_tested_and_do_not_count_as_pairs() -> None:
    first, second = [76.0, 76.4, 76.1], [74.0, 74.3, 74.9]
    p = pairwise_tests([first, [90.0], second])
    assert np.isnan(p[1]).all()
    assert p[0, 2] == pytest.approx(scipy.stats.ttest_ind(first, second, equal_var=False).pvalue)


@settings(deadline=None)
@given(st.lists(st.lists(accuracy, min_size=1, max_size=4), max_size=5), accuracy, accuracy)
def test_no_warning_and_no_nan_whatever_the_spread(groups: list[list[float]], one: float, other: float) -> None:
    groups = [*groups, [one] * 3, [other] * 2]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        p = pairwise_tests(groups)
    repeated = [place for place, group in enumerate(groups) if len(group) > 1]
    tested = p[np.ix_(repeated, repeated)]
    assert ((tested >= 0) & (tested <= 1)).all()


@pytest.mark.parametrize(("n1", "n2"), [(2, 2), (2, 3), (3, 3), (5, 5), (4, 6)])
def test_without_any_spread_the_test_is_scipys_permutation_test(n1: int, n2: int) -> None:
    first, second = [76.52] * n1, [76.5] * n2
    reference = scipy.stats.permutation_test(
        (first, second), lambda x, y: np.mean(x) - np.mean(y), alternative="two-sided"
    )
    assert pairwise_tests([first, second])[0, 1] == pytest.approx(reference.pvalue)


def test_equal_constants_are_not_different() -> None:
    assert pairwise_tests([[0.1 + 0.2] * 5, [0.3] * 5])[0, 1] == 1


@settings(deadline=None)
@given(st.integers(0, 200), st.integers(0, 200))
def test_mcnemar_is_statsmodels_exact_test_less_what_was_seen(first: int, second: int) -> None:
    exact = reference_mcnemar([[0, first], [second, 0]], exact=True).pvalue
    seen = scipy.stats.binom.pmf(min(first, second), first + second, 0.5)
    expected = 1.0 if first == second else exact - seen
    assert mcnemar(first, second) == pytest.approx(expected, abs=1e-12)


def test_mcnemar_meets_the_chi_square_test_for_many_disagreements() -> None:
    chi_square = reference_mcnemar([[0, 50300], [49700, 0]], exact=False, correction=False).pvalue
    assert mcnemar(50300, 49700) == pytest.approx(chi_square, rel=0.01)


def test_mcnemar_refuses_negative_counts() -> None:
    with pytest.raises(ValueError, match="negative"):
        mcnemar([1, -1], [2, 2])


@settings(max_examples=40, deadline=None)
@given(st.floats(0.05, 3), st.floats(0.2, 3), st.sampled_from([0.5, 0.8, 0.95]), st.sampled_from([0.05, 0.01, 0.0005]))
def test_seeds_needed_is_the_least_number_with_the_power(
    sd: float, difference: float, power: float, alpha: float
) -> None:
    n = seeds_needed(sd, difference, power, alpha)

    def reference(n: int) -> float:
        return float(TTestIndPower().power(difference / sd, n, alpha / 2, alternative="larger"))

    assert reference(n) >= power - 1e-9
    assert n == 2 or reference(n - 1) < power + 1e-9


def test_seeds_needed_for_the_published_spread() -> None:
    assert seeds_needed(0.71, 0.5) == 33
    assert seeds_needed(0, 0.5) == 2


@pytest.mark.parametrize(("sd", "difference", "power"), [(-1, 1, 0.8), (1, 0, 0.8), (math.inf, 1, 0.8), (1, 1, 1)])
def test_seeds_needed_refuses_what_has_no_answer(sd: float, difference: float, power: float) -> None:
    with pytest.raises(ValueError, match=r"sd must|power must"):
        seeds_needed(sd, difference, power)


def test_the_typical_spread_weighs_groups_by_their_degrees_of_freedom() -> None:
    assert typical_sd([[1.0, 3.0], [1.0, 2.0, 3.0], [50.0]]) == (pytest.approx(math.sqrt(4 / 3)), 3, 0)
    assert typical_sd([[1.0], [2.0]]) is None
    assert typical_sd([[1.0, 1.0]], 0.25) == (0.5, 1, 0)


def test_one_configuration_that_diverged_does_not_make_the_typical_spread() -> None:
    usual = [[76.0, 76.7, 75.3], [74.0, 74.6, 73.5], [75.0, 75.9, 75.2]]
    assert typical_sd([*usual, [76.0, 10.0, 75.0]]) == (*typical_sd(usual)[:2], 1)  # type: ignore[index]
