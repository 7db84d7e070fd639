"""How an epoch is divided: into batches, and these into the steps of the optimizer."""

from typing import NamedTuple


class Batch(NamedTuple):
    """Images `start` to `end` of an epoch's order, which have `share` of the weight in their step.

    `ends_step` is true of the last batch of a step; with gradients that are not accumulated, of each.
    """

    start: int
    end: int
    share: float
    ends_step: bool


def divide(images: int, batch_size: int, accumulate: int) -> list[Batch]:
    """The batches of an epoch; `accumulate` of them make a step, and at the end those that are left.

    Each image of a step has the same weight, so that the step's gradient is that of one batch of all its images.
    A last batch of a single image joins the one before: batch norm needs two.
    """
    starts = list(range(0, images, batch_size))
    if len(starts) > 1 and images - starts[-1] == 1:
        starts.pop()
    ends = [*starts[1:], images]
    batches = []
    for place, (start, end) in enumerate(zip(starts, ends, strict=True)):
        first = place - place % accumulate
        last = min(first + accumulate, len(starts)) - 1
        batches.append(Batch(start, end, (end - start) / (ends[last] - starts[first]), place == last))
    return batches
