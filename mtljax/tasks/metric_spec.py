"""Description of a metric: label, direction, unit and number format."""

import dataclasses
import math

from mtljax.utils.text import number


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
