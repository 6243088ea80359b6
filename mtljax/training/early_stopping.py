"""Early stopping of a run, derived from the records of its evaluations."""

import math
from collections.abc import Iterable

from mtljax.runs.records import ValidationRecord


def stopping_step(
    evaluations: Iterable[ValidationRecord], patience: int | None, *, after: int = 0
) -> int | None:
    """Returns the step of the evaluation at which training stops, None if it continues.

    Args:
      evaluations: Evaluations of the run so far.
      patience: Number of consecutive evaluations without a lower score; None: it never stops.
      after: Step after which evaluations count: the end of a run that was continued.
    """
    best, count = math.inf, 0
    for record in evaluations:
        if record.score < best:
            best, count = record.score, 0
        elif record.step > after:
            count += 1
            if patience is not None and count >= patience:
                return record.step
    return None
