"""Intervals and tests for repeated runs. Values are in the unit of the metric: per cent for accuracies."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

# Spread below this fraction of the mean is rounding in the last bits, not variation between seeds.
ROUNDING = 1e-12
PER_CENT = (0.0, 100.0)


@dataclass(frozen=True)
class MeanInterval:
    """Mean of n values; the standard deviation (n - 1) and the interval are None when n is 1."""

    n: int
    mean: float
    sd: float | None
    low: float | None
    high: float | None


def mean_interval(
    values: Sequence[float], confidence: float = 0.95, bounds: tuple[float, float] = (-math.inf, math.inf)
) -> MeanInterval:
    """Mean with Student's t-interval, in the unit of the values; it ends at `bounds`, beyond which no mean can lie.

    Source: Student, "The probable error of a mean", Biometrika 6 (1908).
    Raises ValueError for no values, a value that is not finite, or a confidence outside (0, 1).
    """
    _check_fraction("confidence", confidence)
    sample = _sample(values)
    n, mean = sample.size, float(sample.mean())
    if n == 1:
        return MeanInterval(1, mean, None, None, None)
    sd = math.sqrt(_variance(sample))
    half = float(special.stdtrit(n - 1, (1 + confidence) / 2)) * sd / math.sqrt(n)
    return MeanInterval(n, mean, sd, max(mean - half, bounds[0]), min(mean + half, bounds[1]))


def bounds_of(metric: str) -> tuple[float, float]:
    """The least and the most that a metric can be: an accuracy is per cent, a loss at least zero."""
    if "accuracy" in metric:
        return PER_CENT
    return (0.0 if "loss" in metric else -math.inf), math.inf


def wilson_interval(successes: int, n: int, confidence: float = 0.95) -> tuple[float, float]:
    """Wilson's score interval for a proportion, as fractions of 1.

    For one model's accuracy on n images it covers the choice of images, not the choice of seed.
    Source: Wilson, "Probable inference, the law of succession, and statistical inference", JASA 22 (1927).
    Raises ValueError for n < 1, successes outside 0..n, or a confidence outside (0, 1).
    """
    _check_fraction("confidence", confidence)
    if n < 1 or not 0 <= successes <= n:
        raise ValueError(f"successes must lie in 0..n with n >= 1, got {successes} of {n}")
    z = float(special.ndtri((1 + confidence) / 2))
    share = successes / n
    centre = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    # At 0 and n the bound is exact; the formula is off by rounding.
    return (0.0 if successes == 0 else centre - half), (1.0 if successes == n else centre + half)


def pairwise_welch(groups: Sequence[Sequence[float]]) -> NDArray[np.float64]:
    """Two-sided Welch t-tests of all pairs of groups, corrected together by Holm's method.

    Returns the symmetric matrix of corrected p-values (1 on the diagonal); nan, meaning "not tested", where a group has
    fewer than two values. All pairs are corrected, though only those with the best may be of interest: the best is
    itself picked from the data, and correcting only its own pairs calls equal groups different too often.

    Two groups without any spread have no t: for them the p-value is that of the exact permutation test,
    2 / C(n1 + n2, n1), which needs no variance and cannot be made small by two seeds that agree by chance.

    Sources: Welch, "The generalization of 'Student's' problem", Biometrika 34 (1947); Holm, "A simple sequentially
    rejective multiple test procedure", Scandinavian Journal of Statistics 6 (1979).
    Raises ValueError for an empty group or a value that is not finite.
    """
    samples = [_sample(group) for group in groups]
    sizes = np.array([sample.size for sample in samples])
    means = np.array([sample.mean() for sample in samples])
    squared_errors = np.array([_variance(sample) for sample in samples]) / sizes

    corrected = np.full((len(samples), len(samples)), np.nan)
    repeated = np.flatnonzero(sizes > 1)
    corrected[repeated, repeated] = 1.0
    first, second = (repeated[side] for side in np.triu_indices(repeated.size, 1))
    p = np.empty(first.size)

    squared_error = squared_errors[first] + squared_errors[second]
    flat = squared_error == 0
    i, j = first[flat], second[flat]
    same = np.abs(means[i] - means[j]) <= ROUNDING * np.abs(means[i])
    p[flat] = np.where(same, 1.0, np.minimum(1.0, 2 / special.binom(sizes[i] + sizes[j], sizes[i])))

    i, j, error = first[~flat], second[~flat], squared_error[~flat]
    t = (means[i] - means[j]) / np.sqrt(error)
    weight = squared_errors[i] / error
    degrees = 1 / (weight**2 / (sizes[i] - 1) + (1 - weight) ** 2 / (sizes[j] - 1))
    p[~flat] = 2 * special.stdtr(degrees, -np.abs(t))

    corrected[first, second] = corrected[second, first] = holm(p)
    return corrected


def holm(p_values: ArrayLike) -> NDArray[np.float64]:
    """p-values corrected by Holm's step-down method: the family-wise error stays below alpha whatever is true.

    Raises ValueError for a p-value outside [0, 1].
    """
    p = np.asarray(p_values, dtype=np.float64)
    if not np.all((p >= 0) & (p <= 1)):
        raise ValueError("p-values must lie in [0, 1]")
    order = np.argsort(p)
    corrected = np.empty_like(p)
    corrected[order] = np.minimum(1.0, np.maximum.accumulate((p.size - np.arange(p.size)) * p[order]))
    return corrected


def mcnemar(only_first: ArrayLike, only_second: ArrayLike) -> NDArray[np.float64]:
    """McNemar's two-sided mid-p test of two models on the same images.

    only_first and only_second count the images that only the first or only the second model classifies correctly; they
    may be arrays, one entry a pair of models. The p-value is that of the binomial test less half the probability of
    what was seen, on each side. The mid-p form serves at every count: the exact test is needlessly conservative, the
    chi-square one an approximation that fails for few disagreements, and the binomial tail is cheap for many.

    The test tells two trained models apart; it knows nothing of how another seed would have come out.
    Source: Fagerland, Lydersen and Laake, "The McNemar test for binary matched-pairs data: mid-p and asymptotic are
    better than exact conditional", BMC Medical Research Methodology 13:91 (2013).
    Raises ValueError for a negative count.
    """
    first, second = np.asarray(only_first, dtype=np.int64), np.asarray(only_second, dtype=np.int64)
    if np.any(first < 0) or np.any(second < 0):
        raise ValueError("counts must not be negative")
    fewer, total = np.minimum(first, second), first + second
    below = np.where(fewer > 0, special.bdtr(np.maximum(fewer - 1, 0), total, 0.5), 0.0)
    # P(X <= fewer) + P(X < fewer) is twice the tail less the probability of what was seen; 1 for equal counts.
    return np.asarray(np.where(first == second, 1.0, special.bdtr(fewer, total, 0.5) + below))


def pooled_sd(groups: Sequence[Sequence[float]]) -> tuple[float, int] | None:
    """Standard deviation within groups, pooled, with its degrees of freedom; None if no group has two values.

    Raises ValueError for an empty group or a value that is not finite.
    """
    samples = list(map(_sample, groups))
    degrees = sum(sample.size - 1 for sample in samples)
    squares = sum(_variance(sample) * (sample.size - 1) for sample in samples)
    return (math.sqrt(squares / degrees), degrees) if degrees else None


def seeds_needed(sd: float, difference: float, power: float = 0.8, alpha: float = 0.05) -> int:
    """Seeds a configuration (at least 2) with which a two-sided two-sample t-test finds a true difference.

    sd and difference are in the same unit; power is the chance to find it in its true direction, alpha the error.
    Source: Cohen, "Statistical power analysis for the behavioral sciences" (1988), chapter 2; noncentral t.
    Raises ValueError for a negative or infinite sd, a difference not above 0, or a power or alpha outside (0, 1).
    """
    _check_fraction("power", power)
    _check_fraction("alpha", alpha)
    if not 0 <= sd < math.inf or not 0 < difference < math.inf:
        raise ValueError(f"sd must be >= 0 and difference > 0, got {sd} and {difference}")
    if sd == 0:
        return 2
    effect = difference / sd
    # A t-test needs more than the normal approximation says, by a seed or two: the search starts there.
    quantiles = max(0.0, float(special.ndtri(1 - alpha / 2) + special.ndtri(power)))
    n = max(2, math.floor(2 * (quantiles / effect) ** 2))
    while _power(effect, n, alpha) < power:
        n += 1
    return n


def _power(effect: float, n: int, alpha: float) -> float:
    """Chance to call the difference significant in its true direction."""
    degrees, shift = 2 * (n - 1), effect * math.sqrt(n / 2)
    critical = float(special.stdtrit(degrees, 1 - alpha / 2))
    missed = float(special.nctdtr(degrees, shift, critical))
    # SciPy answers nan for some probabilities next to 0.
    return 1.0 if math.isnan(missed) else 1 - missed


def _sample(values: Sequence[float]) -> NDArray[np.float64]:
    sample = np.asarray(values, dtype=np.float64)
    if sample.ndim != 1 or sample.size == 0 or not np.all(np.isfinite(sample)):
        raise ValueError("expected at least one value, all finite")
    return sample


def _variance(sample: NDArray[np.float64]) -> float:
    """Of n - 1; zero for a single value."""
    return 0.0 if np.ptp(sample) <= ROUNDING * np.abs(sample).max() else float(sample.var(ddof=1))


def _check_fraction(name: str, value: float) -> None:
    if not 0 < value < 1:
        raise ValueError(f"{name} must lie between 0 and 1, got {value}")
