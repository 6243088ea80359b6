"""Labels in the cells of a table: missing markers and decimal commas."""

import math
import re
from collections.abc import Collection, Iterable, Sequence
from typing import Any

from mtljax.data.notes import NoteCounter
from mtljax.data.rows import Row, Table
from mtljax.tasks import Keypoints, Regression, Task
from mtljax.utils.text import shortened

MISSING = ("NA", "N/A", "n/a", "#N/A", "<NA>", "NaN", "nan", "NULL", "null", "None", "-")
"""Text that marks a missing label, unless it is the name of a class."""
SENTINEL = re.compile(r"-(1|99+)|999+")
"""Number that often marks a missing value, if it is unlike all other numbers."""
COMMA_NUMBER = re.compile(r"[+-]?\d+,\d+([eE][+-]?\d+)?", re.ASCII)
"""Number with a decimal comma."""
GROUPED = re.compile(r"[+-]?[1-9]\d{0,2}(,\d{3})+", re.ASCII)
"""Number that may have commas between thousands."""
POINT_NUMBER = re.compile(r"[+-]?\d*\.\d+([eE][+-]?\d+)?", re.ASCII)
"""Number with a decimal point."""


class MissingMarkers:
    """Cells that are missing labels. They are counted in `notes`, unlike empty ones."""

    def __init__(self, markers: Sequence[str | float], notes: NoteCounter) -> None:
        self._texts = {marker for marker in markers if isinstance(marker, str)}
        self._numbers = {float(marker) for marker in markers if not isinstance(marker, str)}
        self._notes = notes

    def value(self, value: Any, task: Task, classes: Collection[str], row: Row) -> Any:
        """Returns a cell, or None if it is a marker and no class of the task."""
        marker = self._marker(value)
        if marker is None or marker in classes:
            return value
        self._notes.add(
            "missing", f"labels of task {task.name!r} marked {shortened(marker)!r}", str(row)
        )
        return None

    def without(self, row: Row, columns: Iterable[str | None]) -> Row:
        """Returns a row whose cells with a marker, in some columns, are empty."""
        empty = {name: None for name in columns if name and self._marker(row.cells.get(name))}
        return row._replace(cells={**row.cells, **empty}) if empty else row

    def _marker(self, value: Any) -> str | None:
        """Returns the marker in a cell as text, None without one."""
        if isinstance(value, str):
            is_marker = value in self._texts or (self._numbers and _number(value) in self._numbers)
            return value if is_marker else None
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            if math.isnan(value):
                return "NaN"
            return f"{value:g}" if value in self._numbers else None
        return None


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def with_decimal_points(
    values: Sequence[Any], task: Task, table: Table, notes: NoteCounter
) -> list[Any]:
    """Returns the numbers of a column with decimal points instead of commas, counted in `notes`.

    Only for tasks of numbers, and tables whose cells are not separated by commas.

    Raises:
      ValueError: It is not certain that the commas are decimal.
    """
    if not table.has_decimal_commas or not isinstance(task, (Regression, Keypoints)):
        return list(values)
    parts = [value.split() if isinstance(value, str) else [] for value in values]
    commas = [
        (row, part)
        for row, cell in zip(table.rows, parts, strict=True)
        for part in cell
        if COMMA_NUMBER.fullmatch(part) or GROUPED.fullmatch(part)
    ]
    if not commas:
        return list(values)
    points = [part for cell in parts for part in cell if POINT_NUMBER.fullmatch(part)]
    grouped = [(row, part) for row, part in commas if GROUPED.fullmatch(part)]
    several = [(row, part) for row, part in grouped if part.count(",") > 1]
    if points or several or len(grouped) == len(commas):
        row, part = (several or grouped or commas)[0]
        other = f", and other cells have points, such as {shortened(points[0])}" if points else ""
        raise ValueError(
            f"{row}: task {task.name!r}: {shortened(part)!r} may have a decimal comma or a comma "
            f"between thousands{other}; write all numbers with decimal points alone"
        )
    converted = []
    for row, value, cell in zip(table.rows, values, parts, strict=True):
        if any(COMMA_NUMBER.fullmatch(part) for part in cell):
            value = " ".join(
                part.replace(",", ".") if COMMA_NUMBER.fullmatch(part) else part for part in cell
            )
            notes.add("converted", f"decimal commas of task {task.name!r} to points", str(row))
        converted.append(value)
    return converted


def note_sentinels(
    rows: Sequence[Row], values: Sequence[Any], task: Task, notes: NoteCounter
) -> None:
    """Warns of a number such as -999 in a column that otherwise has none like it.

    It is the only negative number, or more than ten times the next one.
    """
    if not isinstance(task, Regression):
        return
    numbers = [float("nan") if isinstance(v, bool) else _number(str(v)) for v in values]
    known = sorted({x for x in numbers if x is not None and math.isfinite(x)})
    if len(known) < 3:
        return
    unusual = [known[0]] if known[0] < 0 <= known[1] else []
    unusual += [known[-1]] if known[-1] > 10 * abs(known[-2]) else []
    for value in unusual:
        if SENTINEL.fullmatch(f"{value:.0f}") and value.is_integer():
            row = next(row for row, x in zip(rows, numbers, strict=True) if x == value)
            what = (
                f"task {task.name!r}: {value:.0f} is a label; if it means that there is none, set "
                f"missing={value:.0f}"
            )
            notes.add("warning", what, str(row), numbers.count(value))
