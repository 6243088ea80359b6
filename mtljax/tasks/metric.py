"""Interface of metrics: streaming states, and the description of a metric."""

import abc
import dataclasses
import math
from typing import Any

from jaxtyping import Array, Bool, PyTree

from mtljax.utils.text import number

TaskMetrics = dict[str, Any]
"""Metrics of one task: name -> number, or nested lists of numbers (a confusion matrix, a curve)."""
SplitMetrics = dict[str, TaskMetrics]
"""Metrics of every task over one split: {task: {metric: value}}."""
Present = Bool[Array, " B"]
"""Mask of the examples that carry a task's label."""


@dataclasses.dataclass(frozen=True)
class MetricSpec:
    """Label, direction, unit and number format of a metric.

    Example:
      >>> MetricSpec("accuracy", higher_is_better=True, percent=True).format(0.989)
      '98.9 %'
    """

    label: str
    """Name of the metric in reports and figures."""
    _: dataclasses.KW_ONLY
    higher_is_better: bool | None = None
    """None for a metric that is not compared: a threshold, or a list with a value per class."""
    unit: str = ""
    """Text that follows the number, for example "°"."""
    percent: bool = False
    """True to print a fraction as a percentage."""
    zero_below: float = 0.0
    """Values with a smaller magnitude are rounding errors and are printed as 0."""

    def format(self, value: float | None, digits: int = 3) -> str:
        """Returns a value with its unit, at least `digits` significant digits, "n/a" for NaN."""
        if value is None or not math.isfinite(value):
            return number(value, digits)
        if self.percent:
            return f"{100 * value:.{max(digits - 2, 0)}f} %"
        value = 0.0 if abs(value) < self.zero_below else value
        return f"{number(value, digits)}{self.unit}"

    def format_tick(self, value: float) -> str:
        """Returns the label of an axis tick."""
        return f"{100 * value:.6g} %" if self.percent else f"{value:.6g}"


class Metrics(abc.ABC):
    """Streaming metrics of a data set, exact under any batching and any number of devices.

    A state is a pytree of sums and counts. `update` runs on the device, for one batch, in 32 bits;
    `merge` and `compute` run on the host, on NumPy arrays of 64 bits, so that counts above 2^24
    are exact and sums do not drift.
    """

    @abc.abstractmethod
    def empty(self) -> PyTree:
        """Returns the state for zero examples."""

    @abc.abstractmethod
    def update(self, state: PyTree, output: Any, label: Any, present: Present) -> PyTree:
        """Returns the state after another batch, of which only the `present` examples count."""

    def merge(self, a: PyTree, b: PyTree) -> PyTree:
        """Returns the state of the union of two sets of examples; by default the sum."""
        if isinstance(a, dict):
            return {name: self.merge(a[name], b[name]) for name in a}
        return a + b

    @abc.abstractmethod
    def compute(self, state: PyTree) -> TaskMetrics:
        """Returns the metrics, NaN if no example carries the label."""


class NoMetrics(Metrics):
    """Metrics of a task that has only a loss."""

    def empty(self) -> PyTree:
        return {}

    def update(self, state: PyTree, output: Any, label: Any, present: Present) -> PyTree:
        return state

    def compute(self, state: PyTree) -> TaskMetrics:
        return {}
