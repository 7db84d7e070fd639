"""How far apart two models are that were tried on the same images, and how many images it takes to tell."""

import math

from scipy import optimize, special


def difference_interval(
    only_first: int, only_second: int, images: int, confidence: float = 0.95
) -> tuple[float, float]:
    """Tango's score interval for the difference of two accuracies on the same images, as fractions of 1.

    `only_first` and `only_second` of the `images` were answered correctly by one model alone; the difference is the
    first accuracy less the second. The bounds are the differences that the score test at 1 - `confidence` just does not
    reject, so they never leave [-1, 1], and lie apart even if the models never disagree.

    Source: Tango, "Equivalence test and confidence interval for the difference in proportions for the paired-sample
    design", Statistics in Medicine 17:891-908 (1998).
    Raises ValueError for counts below 0 or together above `images`, no images, or a confidence outside (0, 1).
    """
    if images < 1 or min(only_first, only_second) < 0 or only_first + only_second > images:
        raise ValueError(
            f"counts must be at least 0, and no more than the images: {only_first}, {only_second}, {images}"
        )
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must lie between 0 and 1, got {confidence}")
    z, seen = float(special.ndtri((1 + confidence) / 2)), (only_first - only_second) / images

    def bound(sign: int) -> float:
        def beyond(difference: float) -> float:
            return abs(_score(only_first, only_second, images, difference)) - z

        # At the difference that was seen the score is 0, and it grows without end towards the edge.
        edge = sign * (1 - 1e-12)
        return float(optimize.brentq(beyond, seen, edge, xtol=1e-14)) if sign * (edge - seen) > 0 else float(sign)

    return bound(-1), bound(1)


def _score(only_first: int, only_second: int, images: int, difference: float) -> float:
    """The score statistic if the true difference is `difference`; its variance has the likeliest `only_second` then."""
    b = (2 * images - only_first + only_second) * difference - only_first - only_second
    c = -only_second * difference * (1 - difference)
    likeliest = (math.sqrt(max(0.0, b * b - 8 * images * c)) - b) / (4 * images)
    variance = images * (2 * likeliest + difference * (1 - difference))
    deviation = only_first - only_second - images * difference
    return deviation / math.sqrt(variance) if variance > 0 else math.copysign(math.inf, deviation) if deviation else 0.0


def images_needed(disagreement: float, margin: float, confidence: float = 0.95, power: float = 0.8) -> int:
    """Images with which two models of the same accuracy are told to be no further than `margin` apart.

    `disagreement` is the share of images on which one of them alone is right, `margin` a difference of accuracies, both
    as fractions of 1; `power` is the chance that the interval then lies above -`margin`.
    Source: Liu, Hsueh, Hsieh and Chen, "Tests for equivalence or non-inferiority for paired binary data", Statistics in
    Medicine 21:231-245 (2002).
    Raises ValueError for a margin not above 0, a disagreement outside (0, 1], a confidence or power outside (0, 1).
    """
    if margin <= 0 or not 0 < disagreement <= 1 or not all(0 < each < 1 for each in (confidence, power)):
        raise ValueError(f"cannot tell for {disagreement}, {margin}, {confidence}, {power}")
    quantiles = float(special.ndtri((1 + confidence) / 2) + special.ndtri(power))
    return math.ceil(disagreement * (quantiles / margin) ** 2)
