"""Intervals of the difference of two models on the same images."""

import numpy as np
import pytest
from scipy import special

from cifar_mlflow.analysis import paired


@pytest.mark.parametrize(
    ("only_first", "only_second", "images", "confidence", "published"),
    [
        # Tango (1998), soft contact lenses: 43 pairs alike and one not. This, and the next three, are held to their
        # publications by the tests of R's ratesci, too: pairbinci(c(43, 0, 1, 0), contrast = "RD", level = 0.9).
        (0, 1, 44, 0.90, (-0.096, 0.037)),
        # Tango (1998): pairbinci(c(4, 9, 3, 16)).
        (9, 3, 32, 0.95, (-0.027, 0.390)),
        # Agresti and Min, Statistics in Medicine 24 (2005): pairbinci(c(53, 16, 8, 9)).
        (16, 8, 86, 0.95, (-0.020, 0.207)),
        # Fagerland, Lydersen and Laake, Statistics in Medicine 33 (2014), Table V, airway hyper-responsiveness (Bentur
        # et al., 2009): pairbinci(c(1, 1, 7, 12)).
        (1, 7, 21, 0.95, (-0.517, -0.026)),
        # The complete response of Cavo et al. (2012), by the R package contingencytables of the same three authors.
        (6, 16, 161, 0.95, (-0.1240, -0.0054)),
        # scoreci.mp(25, 28, 618) of R's PropCIs, at 90%.
        (28, 25, 618, 0.90, (-0.0148, 0.0247)),
    ],
)  # fmt: skip
def test_the_interval_is_the_published_one(only_first, only_second, images, confidence, published):
    digits = max(len(str(bound).partition(".")[2]) for bound in published)
    found = paired.difference_interval(only_first, only_second, images, confidence)
    assert tuple(round(bound, digits) for bound in found) == published


def score(only_first, only_second, images, difference):
    """Tango's statistic, with the likeliest probability of `only_second` found by searching the likelihood."""
    q = np.linspace(max(0, -difference), (1 - difference) / 2, 200_001)[1:-1]
    likelihood = (
        special.xlogy(only_first, q + difference)
        + special.xlogy(only_second, q)
        + special.xlogy(images - only_first - only_second, 1 - 2 * q - difference)
    )
    variance = images * (2 * q[np.nanargmax(likelihood)] + difference * (1 - difference))
    return (only_first - only_second - images * difference) / np.sqrt(variance)


@pytest.mark.parametrize("counts", [(40, 20, 160), (3, 13, 400), (1, 7, 50), (0, 5, 25), (520, 490, 10_000)])
def test_the_score_at_each_bound_is_the_quantile(counts):
    low, high = paired.difference_interval(*counts)
    assert score(*counts, low) == pytest.approx(special.ndtri(0.975), abs=1e-3)
    assert score(*counts, high) == pytest.approx(-special.ndtri(0.975), abs=1e-3)


@pytest.mark.parametrize("counts", [(0, 0, 1), (0, 0, 100), (1, 0, 1), (50, 0, 50), (0, 50, 50), (7, 1, 21)])
def test_the_interval_holds_what_was_seen_and_turns_with_the_models(counts):
    first, second, images = counts
    low, high = paired.difference_interval(*counts)
    assert -1 <= low <= (first - second) / images <= high <= 1
    assert low < high
    assert paired.difference_interval(second, first, images) == pytest.approx((-high, -low), abs=1e-9)


@pytest.mark.parametrize("counts", [(-1, 0, 5), (0, 0, 0), (3, 3, 5)])
def test_counts_that_cannot_be(counts):
    with pytest.raises(ValueError, match="counts"):
        paired.difference_interval(*counts)
    with pytest.raises(ValueError, match="confidence"):
        paired.difference_interval(1, 1, 5, confidence=1.0)


def test_with_the_images_needed_four_of_five_pairs_of_equal_models_are_told():
    disagreement, margin = 0.08, 0.01
    images = paired.images_needed(disagreement, margin)
    assert images == 6280
    cells = [disagreement / 2, disagreement / 2, 1 - disagreement]
    drawn = np.random.default_rng(0).multinomial(images, cells, 800)
    told = [paired.difference_interval(first, second, images)[0] > -margin for first, second, _ in drawn]
    assert np.mean(told) == pytest.approx(0.8, abs=0.04)


@pytest.mark.parametrize("values", [(0, 0.01), (1.1, 0.01), (0.1, 0)])
def test_images_needed_for_what_cannot_be(values):
    with pytest.raises(ValueError, match="cannot tell"):
        paired.images_needed(*values)
