"""How far champions fall by promotions that each look harmless: simulated predictions, the gate that promote uses.

    python benchmarks/statistics/champions.py [--simulations 200]

Ten models come up for promotion one after the other. Each is truly 0.3 points worse than the model before it, or than
the champion of its moment. A model answers an image correctly if its skill, the image's ease and chance sum to more
than 0; ease is shared by all models, and spreads so that two models disagree about as often as two seeds of a network.
Prints a table for docs/explanation/statistics.md: how far the last champion is truly below the best there was.
"""

import argparse
import itertools

import numpy as np
from scipy import special

from cifar_mlflow.analysis import gates
from cifar_mlflow.analysis.gates import Rivals
from cifar_mlflow.tables import markdown

IMAGES = 10_000
MODELS = 10
STEP = 0.3  # points
# Accuracy of the first champion in per cent, and the spread of the images' ease in standard deviations of chance.
TASKS = {94.0: 2.5, 78.0: 1.9}
# What a model is compared with, and the margin.
RULES = {
    "the champion of the moment": (False, None),
    "the best champion so far": (True, None),
    "the best so far, --margin 0.5": (True, 0.5),
}
SEQUENCES = ("the model before", "the champion")


def correct(rng: np.random.Generator, ease: np.ndarray, spread: float, accuracy: float) -> np.ndarray:
    """Which images a model of the true accuracy (per cent) answers correctly."""
    skill = special.ndtri(accuracy / 100) * np.sqrt(1 + spread**2)
    return skill + ease + rng.standard_normal(len(ease)) > 0


def last_champion(rng: np.random.Generator, first: float, spread: float, sequence: str, rule: str) -> float:
    """How many points the champion after ten candidates is truly below the first, which is the best there was."""
    against_best, margin = RULES[rule]
    ease = spread * rng.standard_normal(IMAGES)
    accuracies, answers = [first], [correct(rng, ease, spread, first)]
    before = first
    for _ in range(MODELS):
        accuracy = (accuracies[-1] if sequence == "the champion" else before) - STEP
        candidate, before = correct(rng, ease, spread, accuracy), accuracy
        rival = max(answers, key=np.count_nonzero) if against_best else answers[-1]
        if gates.champion(Rivals.count(candidate, rival), "not-worse", 0.05, "", margin).passed:
            accuracies.append(accuracy)
            answers.append(candidate)
    return first - accuracies[-1]


def disagreement(first: float, spread: float) -> float:
    """The share of images, in per cent, on which one of two equal models alone is right."""
    rng = np.random.default_rng(0)
    ease = spread * rng.standard_normal(1_000_000)
    return float(100 * np.mean(correct(rng, ease, spread, first) != correct(rng, ease, spread, first)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--simulations", type=int, default=200)
    simulations = parser.parse_args().simulations
    rows = []
    for (first, spread), sequence, rule in itertools.product(TASKS.items(), SEQUENCES, RULES):
        below = [
            last_champion(np.random.default_rng(seed), first, spread, sequence, rule) for seed in range(simulations)
        ]
        quantile = np.quantile(below, 0.95, method="higher")
        task = f"{first:g}%, {disagreement(first, spread):.1f}%"
        rows.append((task, sequence, rule, f"{np.median(below):.1f}", f"{quantile:.1f}", f"{max(below):.1f}"))
    headings = ("accuracy, disagreement", "0.3 points worse than", "compared with", "median", "95%", "most")
    print(markdown(headings, rows, "lllrrr"))


if __name__ == "__main__":
    main()
