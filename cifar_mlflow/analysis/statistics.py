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
LENT = 1.15  # times what the groups' agreement says: found by simulation, as the rest of what makes this test careful


@dataclass(frozen=True)
class MeanInterval:
    """Mean of n values; the standard deviation (n - 1) is None when n is 1, the interval when nothing has a spread."""

    n: int
    mean: float
    sd: float | None
    low: float | None
    high: float | None


def mean_interval(
    values: Sequence[float],
    confidence: float = 0.95,
    bounds: tuple[float, float] = (-math.inf, math.inf),
    floor: float = 0.0,
) -> MeanInterval:
    """Mean with Student's t-interval, in the unit of the values; it ends at `bounds`, beyond which no mean can lie.

    Its variance is at least `floor` (see `rounding_variance`). Equal values without a floor have no interval: that a
    few of them agree does not say that the next one would.
    Source: Student, "The probable error of a mean", Biometrika 6 (1908).
    Raises ValueError for no values, a value that is not finite, or a confidence outside (0, 1).
    """
    _check_fraction("confidence", confidence)
    sample = _sample(values)
    n, mean = sample.size, float(sample.mean())
    if n == 1:
        return MeanInterval(1, mean, None, None, None)
    variance = _variance(sample)
    sd = math.sqrt(variance)
    if max(variance, floor) == 0:
        return MeanInterval(n, mean, sd, None, None)
    half = float(special.stdtrit(n - 1, (1 + confidence) / 2)) * math.sqrt(max(variance, floor) / n)
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


def pairwise_tests(groups: Sequence[Sequence[float]], floor: ArrayLike = 0.0) -> NDArray[np.float64]:
    """Two-sided moderated t-tests of all pairs of groups, corrected together by Shaffer's method.

    `floor` is the least variance that each group's values can be taken for (see `rounding_variance`), one for all or
    one a group. Returns the symmetric matrix of corrected p-values (1 on the diagonal); nan, meaning "not tested",
    where a group has fewer than two values. All pairs are corrected, though only those with the best may be of
    interest: the best is itself picked from the data, and correcting only its own pairs calls equal groups different
    too often.

    Sources: `shaffer` and `moderated_tests`.
    Raises ValueError for an empty group or a value that is not finite.
    """
    samples = [_sample(group) for group in groups]
    sizes = np.array([sample.size for sample in samples])
    corrected = np.full((len(samples), len(samples)), np.nan)
    repeated = np.flatnonzero(sizes > 1)
    corrected[repeated, repeated] = 1.0
    if repeated.size > 1:
        means, variances = (np.array([of(samples[place]) for place in repeated]) for of in (np.mean, _variance))
        floors = np.broadcast_to(np.asarray(floor, dtype=np.float64), sizes.shape)[repeated]
        p = shaffer(moderated_tests(means, np.maximum(variances, floors), sizes[repeated]))
        first, second = (repeated[side] for side in np.triu_indices(repeated.size, 1))
        corrected[first, second] = corrected[second, first] = p
    return corrected


def moderated_tests(
    means: NDArray[np.float64], variances: NDArray[np.float64], sizes: NDArray[np.int64]
) -> NDArray[np.float64]:
    """p-values, not yet corrected, of all pairs of k groups, in the order of `np.triu_indices`: (..., k (k - 1) / 2).

    means and variances (of n - 1) are (..., k); sizes, all above 1, are (k,). The t-test is Welch's with the variances
    and degrees of freedom of `moderated_variances`. Of Welch's degrees for the variances found and for equal ones the
    fewer count: found ones promise too many where the group of few values happens to spread little.

    Two groups without any spread have no t: for them the p-value is that of the exact permutation test,
    2 / C(n1 + n2, n1), which needs no variance and cannot be made small by two seeds that agree by chance.

    Source: Welch, "The generalization of 'Student's' problem", Biometrika 34 (1947). How often it errs, and what it
    finds: docs/explanation/statistics.md.
    """
    degrees = np.asarray(sizes - 1, dtype=np.float64)
    moderated, more_degrees = moderated_variances(variances, degrees)
    i, j = np.triu_indices(sizes.size, 1)
    gap = np.abs(means[..., i] - means[..., j])
    errors, equal = moderated / sizes, 1 / sizes
    error = errors[..., i] + errors[..., j]
    flat = error == 0
    share = errors[..., i] / np.where(flat, 1.0, error)
    fewest = np.minimum(
        *(1 / (w**2 / more_degrees[..., i] + (1 - w) ** 2 / more_degrees[..., j])
          for w in (share, equal[i] / (equal[i] + equal[j])))
    )  # fmt: skip
    # However much the groups lend one another, there are no more degrees than all of them have.
    p = 2 * special.stdtr(np.minimum(fewest, degrees.sum()), -gap / np.sqrt(np.where(flat, 1.0, error)))
    same = gap <= ROUNDING * np.abs(means[..., i])
    exact = np.where(same, 1.0, np.minimum(1.0, 2 / special.binom(sizes[i] + sizes[j], sizes[i])))
    return np.asarray(np.where(flat, exact, p))


def moderated_variances(
    variances: NDArray[np.float64], degrees: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Variances (..., k), each drawn towards that of all as far as they agree, and the degrees of freedom they have.

    Smyth's moderation: (prior * centre + degrees * variance) / (prior + degrees). How many degrees the prior has
    follows from how far the variances differ beyond the chance of few values. It is careful where that cannot be told:
    less is lent the fewer groups there are (two lend nothing), no more than one degree to a group of two values, and
    the centre is an arithmetic mean, which is above the geometric one.

    Sources: Smyth, "Linear models and empirical Bayes methods for assessing differential expression", Statistical
    Applications in Genetics and Molecular Biology 3 (2004); the prior's weight by Opgen-Rhein and Strimmer, "Accurate
    ranking of differentially expressed genes by a distribution-free shrinkage approach", the same 6 (2007); that fewer
    groups lend less as Morris, "Parametric empirical Bayes inference", JASA 78 (1983).
    """
    noise = (2 / degrees).mean()  # squared coefficient of variation of a variance, by chance alone
    mean = variances.mean(-1, keepdims=True)
    between = variances.var(-1, ddof=1, keepdims=True)
    squared = np.maximum(mean**2 - between / degrees.size, 0.0)  # of the common variance, without bias
    total = between + squared
    # 1 if the variances differ no more than by chance; 0 if they have nothing in common.
    alike = np.minimum(1.0, (1 + noise) * squared / np.where(total == 0, 1.0, total))
    weight = max(0.0, 1 - 1.5 / (degrees.size - 1)) * noise / (1 + noise - alike)
    prior = LENT * 2 / noise * weight / (1 - weight)
    prior = np.where(degrees == 1, np.minimum(prior, 1.0), prior)
    centre = np.maximum(mean, (variances * degrees).sum(-1, keepdims=True) / degrees.sum())
    return (prior * centre + degrees * variances) / (prior + degrees), prior + degrees


def rounding_variance(images: int) -> float:
    """Variance that lies hidden in one accuracy, in per cent squared, because it is a whole number of `images`.

    That of a uniform error of one step, 100 / images: values that agree may differ so much without it being seen.
    Source: Sheppard, "On the calculation of the most probable values of frequency-constants", Proceedings of the
    London Mathematical Society 29 (1898). Raises ValueError for images < 1.
    """
    if images < 1:
        raise ValueError(f"images must be 1 or more, got {images}")
    return (100 / images) ** 2 / 12


def shaffer(p_values: ArrayLike) -> NDArray[np.float64]:
    """p-values (..., k (k - 1) / 2) of all pairs of k groups, corrected by Shaffer's step-down method.

    As Holm's, it keeps the family-wise error below alpha whatever is true, and it finds more: if one of three pairs
    differs, at most one of the others is equal, not both.
    Source: Shaffer, "Modified sequentially rejective multiple test procedures", JASA 81 (1986), her first procedure.
    Raises ValueError for a p-value outside [0, 1], or if there is no k with so many pairs.
    """
    p = np.asarray(p_values, dtype=np.float64)
    if not np.all((p >= 0) & (p <= 1)):
        raise ValueError("p-values must lie in [0, 1]")
    groups = (1 + math.isqrt(1 + 8 * p.shape[-1])) // 2
    if groups * (groups - 1) // 2 != p.shape[-1]:
        raise ValueError(f"{p.shape[-1]} p-values are not those of all pairs of some groups")
    order = np.argsort(p, axis=-1)
    stepped = np.maximum.accumulate(_most_equal_pairs(groups) * np.take_along_axis(p, order, -1), axis=-1)
    corrected = np.empty_like(p)
    np.put_along_axis(corrected, order, np.minimum(1.0, stepped), -1)
    return corrected


def _most_equal_pairs(groups: int) -> NDArray[np.int64]:
    """How many of the pairs can be equal at most when none, one, two ... of them differ: (pairs)."""
    # Bit c of possible[n]: c pairs of n groups can be equal, those within the parts into which equality divides them.
    possible = [1]
    for n in range(1, groups + 1):
        possible.append(0)
        for part in range(1, n + 1):
            possible[n] |= possible[n - part] << part * (part - 1) // 2
    pairs = groups * (groups - 1) // 2
    counts = np.flatnonzero([digit == "1" for digit in f"{possible[groups]:b}"[::-1]])
    return counts[np.searchsorted(counts, pairs - np.arange(pairs), side="right") - 1]


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


def typical_sd(groups: Sequence[Sequence[float]], floor: ArrayLike = 0.0) -> tuple[float, int, int] | None:
    """Standard deviation within groups: pooled, its degrees of freedom, and how many groups are not in it.

    Left out are those that spread far more than most, as a configuration does that diverges with some seed: their
    variance is above the 99.9% limit about the median of all. No variance is below its `floor`. None if no group has
    two values. Raises ValueError for an empty group or a value that is not finite.
    """
    floors = np.broadcast_to(np.asarray(floor, dtype=np.float64), (len(groups),))
    samples = [(sample, least) for sample, least in zip(map(_sample, groups), floors, strict=True) if sample.size > 1]
    if not samples:
        return None
    degrees = np.array([sample.size - 1 for sample, _ in samples])
    variances = np.array([max(_variance(sample), least) for sample, least in samples])
    median = np.median(variances * degrees / special.chdtri(degrees, 0.5))
    typical = (variances * degrees <= median * special.chdtri(degrees, 0.001)) | (median == 0)
    pooled = math.sqrt((variances * degrees)[typical].sum() / degrees[typical].sum())
    return pooled, int(degrees[typical].sum()), int((~typical).sum())


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
