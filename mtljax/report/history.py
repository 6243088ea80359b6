"""Series of numbers out of the lines of `metrics.jsonl`."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np


class Series(NamedTuple):
    """Values at steps; NaN and infinite ones are kept."""

    steps: np.ndarray
    values: np.ndarray

    def finite(self) -> "Series":
        """Without what cannot be drawn."""
        keep = np.isfinite(self.values)
        return Series(self.steps[keep], self.values[keep])

    def thinned(self, limit: int = 400) -> "Series":
        """At most `limit` points: means over runs of neighbours, where there are more."""
        if len(self.steps) <= limit:
            return self
        starts = np.linspace(0, len(self.steps), limit, endpoint=False).astype(int)
        counts = np.diff(np.append(starts, len(self.steps)))
        return Series(*(np.add.reduceat(x, starts) / counts for x in self))

    def tail(self, share: float) -> np.ndarray:
        """The values of the last `share` of the points, at least one if there is any."""
        return self.values[-max(1, round(share * len(self.values))) :]


def series(history: Sequence[dict], *keys: str) -> Series:
    """What stands under nested `keys`, of the lines that have it.

    `series(history, "loss", "digit")` is a task's training loss, and
    `series(history, "validation", "digit", "loss")` its validation loss.
    """
    steps, values = [], []
    for line in history:
        value: Any = line
        for key in keys:
            value = value.get(key) if isinstance(value, dict) else None
        if value is not None:
            steps.append(line["step"])
            values.append(value)
    return Series(np.asarray(steps, float), np.asarray(values, float))


def steps_per_epoch(history: Sequence[dict]) -> float | None:
    """How many steps go through the training data once, if the history tells."""
    epochs = series(history, "epoch")
    if not len(epochs.steps) or not epochs.values[-1] > 0:
        return None
    return float(epochs.steps[-1] / epochs.values[-1])
