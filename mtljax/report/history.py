"""Series of numbers from the records of `metrics.jsonl`."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from mtljax.runs.records import LogRecord

History = Sequence[LogRecord]
"""Records of a run in the order of their steps."""


class Series(NamedTuple):
    """Values at steps; they may be NaN or infinite."""

    steps: Float[np.ndarray, " N"]
    """Steps, in increasing order."""
    values: Float[np.ndarray, " N"]
    """Value at each step."""

    def finite(self) -> "Series":
        """Returns the finite values."""
        finite = np.isfinite(self.values)
        return Series(self.steps[finite], self.values[finite])

    def downsample(self, limit: int = 400) -> "Series":
        """Returns at most `limit` points: means over runs of neighbors."""
        if len(self.steps) <= limit:
            return self
        starts = np.linspace(0, len(self.steps), limit, endpoint=False).astype(int)
        counts = np.diff(np.append(starts, len(self.steps)))
        return Series(*(np.add.reduceat(x, starts) / counts for x in self))

    def tail(self, fraction: float) -> Float[np.ndarray, " N"]:
        """Returns the values of the last fraction of the points, at least one if there is any."""
        return self.values[-max(1, round(fraction * len(self.values))) :]


def series(history: History, field: str, *keys: str) -> Series:
    """Returns the values of a field, or of nested keys in it, from the records that have them.

    `series(history, "loss", "digit")` is a task's training loss, and
    `series(history, "validation", "digit", "loss")` its validation loss.
    """
    steps, values = [], []
    for record in history:
        value: Any = getattr(record, field, None)
        for key in keys:
            value = value.get(key) if isinstance(value, Mapping) else None
        if value is not None:
            steps.append(record.step)
            values.append(value)
    return Series(np.asarray(steps, float), np.asarray(values, float))


def steps_per_epoch(history: History) -> float | None:
    """Returns the number of steps per epoch; None if no record has a positive epoch."""
    epochs = series(history, "epoch")
    if not len(epochs.steps) or not epochs.values[-1] > 0:
        return None
    return float(epochs.steps[-1] / epochs.values[-1])
