"""How often the comparison's verdicts err and what they find, by simulation: of configurations whose truth is known.

    python benchmarks/statistics/verdicts.py [SIMULATIONS]     (1,000: about a minute of one core)

prints docs/explanation/statistics.md's table. Each cell is a number of configurations, of seeds of each, and a pattern
of spreads. False alarms: of how many comparisons of configurations that are all equal is any called worse than the
best, in per cent. Power: of the configurations that are four standard deviations (the root mean square of all spreads)
worse than the first, how many are called worse. Both with values as they are drawn, and with values rounded to steps
of the smallest spread, as accuracies on few images are. Before: Welch's t-test with Holm's correction; after: what
`compare` does. The two see the same values.
"""

import sys
from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray
from scipy import special

from cifar_mlflow import tables
from cifar_mlflow.analysis import statistics
from cifar_mlflow.analysis.comparison.verdicts import ALPHA

Array = NDArray[np.float64]
Test = Callable[[Array, Array, NDArray[np.int64], float], Array]

CONFIGURATIONS = (2, 3, 5, 10, 20)
# Seeds of every other configuration, from the first on, and of those between.
SEEDS = ((2, 2), (3, 3), (5, 5), (10, 10), (2, 10), (10, 2))
# Standard deviations of the same; one: that of the last alone.
SPREADS = {"equal": (1, 1), "twofold": (1, 2), "tenfold": (1, 10), "tenfold, one": (1, 10)}
STEPS = (0.0, 1.0)
DIFFERENCE = 4.0
# False alarms that are allowed, in per cent.
ALLOWED = {"equal": 5.0, "twofold": 5.0, "tenfold": 10.0, "tenfold, one": 10.0}


def before(means: Array, variances: Array, sizes: NDArray[np.int64], step: float) -> Array:
    """p-values of all pairs by Welch's t-test; by the permutation test where two groups have no spread."""
    i, j = np.triu_indices(sizes.size, 1)
    errors, gap = variances / sizes, np.abs(means[:, i] - means[:, j])
    error = errors[:, i] + errors[:, j]
    flat = error == 0
    error[flat] = 1
    share = errors[:, i] / error
    degrees = 1 / (share**2 / (sizes[i] - 1) + (1 - share) ** 2 / (sizes[j] - 1))
    exact = np.where(gap == 0, 1.0, np.minimum(1, 2 / special.binom(sizes[i] + sizes[j], sizes[i])))
    return np.where(flat, exact, 2 * special.stdtr(degrees, -gap / np.sqrt(error)))


def after(means: Array, variances: Array, sizes: NDArray[np.int64], step: float) -> Array:
    floor = statistics.rounding_variance(1) * (step / 100) ** 2  # that of a step of 100
    return statistics.moderated_tests(means, np.maximum(variances, floor), sizes)


def alternating(values: tuple[float, float], k: int) -> Array:
    return np.where(np.arange(k) % 2 == 0, *values)


def draw(
    rng: np.random.Generator, sizes: NDArray[np.int64], spreads: Array, step: float, difference: float, simulations: int
) -> tuple[Array, Array]:
    """Means and variances (simulations, k) of k configurations; the first is better than the others by `difference`."""
    most = int(sizes.max())
    values = rng.normal(0, spreads[:, None], (simulations, sizes.size, most))
    values[:, 0] += difference
    if step:  # the truth lies anywhere between two steps
        values = step * np.round(values / step + rng.uniform(0, 1, (simulations, 1, 1)))
    counted = np.arange(most) < sizes[:, None]
    means = (values * counted).sum(-1) / sizes
    variances = ((values - means[..., None]) ** 2 * counted).sum(-1) / (sizes - 1)
    variances[variances < 1e-20] = 0
    return means, variances


def worse(test: Test, means: Array, variances: Array, sizes: NDArray[np.int64], step: float) -> NDArray[np.bool_]:
    """Which pairs, in the order of np.triu_indices, have a configuration that is called worse than the best."""
    i, j = np.triu_indices(sizes.size, 1)
    best = means.argmax(1)[:, None]
    significant = statistics.holm(test(means, variances, sizes, step)) < ALPHA
    return significant & ((i == best) | (j == best))


def cells(simulations: int) -> Iterator[tuple[str, int, str, list[float]]]:
    """Spread, configurations, seeds; false alarms and power in per cent: before, after, and both with coarse values."""
    rng = np.random.default_rng(0)
    for spread, deviations in SPREADS.items():
        for k in CONFIGURATIONS:
            for seeds in SEEDS:
                sizes = alternating(seeds, k)
                spreads = np.r_[np.ones(k - 1), deviations[1]] if "one" in spread else alternating(deviations, k)
                found = []
                for step in STEPS:
                    apart = DIFFERENCE * float(np.sqrt((spreads**2).mean()))
                    equal, different = (
                        draw(rng, sizes, spreads, step, difference, simulations) for difference in (0, apart)
                    )
                    for test in (before, after):
                        alarms = worse(test, *equal, sizes, step).any(1).mean()
                        with_first = worse(test, *different, sizes, step)[:, : k - 1]
                        found += [100 * float(alarms), 100 * float(with_first.mean())]
                yield spread, k, " and ".join(map(str, dict.fromkeys(seeds))), found


def main() -> None:
    simulations = int(sys.argv[1]) if len(sys.argv) > 1 else 1000
    headings = ["spreads", "configurations", "seeds"]
    headings += [
        f"{test}{values}: {what}"
        for values in ("", ", coarse") for test in ("before", "after") for what in ("false", "power")
    ]  # fmt: skip
    rows, highest = [], {}
    for spread, k, seeds, found in cells(simulations):
        rows.append([spread, str(k), seeds, *(f"{value:.1f}" if place % 2 == 0 else f"{value:.0f}"
                                              for place, value in enumerate(found))])  # fmt: skip
        for name, place in (("before", 0), ("after", 2)):
            highest[spread, name] = max(highest.get((spread, name), 0), found[place], found[place + 4])
    print(tables.markdown(headings, rows, "lrlrrrrrrrr"))
    print()
    for spread, allowed in ALLOWED.items():
        told = ", ".join(f"{name} {highest[spread, name]:.1f}" for name in ("before", "after"))
        print(f"most false alarms, {spread}: {told} (wanted: at most {allowed:g})")


if __name__ == "__main__":
    main()
