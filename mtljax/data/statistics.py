"""Statistics of labels: number of examples, label frequencies and missing labels."""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from mtljax.data.base import Split
from mtljax.data.notes import Note
from mtljax.data.problems import read_examples
from mtljax.tasks import Task

MAX_CLASSES_SHOWN = 6
"""Number of classes that are listed."""


@dataclasses.dataclass
class LabelStatistics:
    """Statistics of one task's labels in one split.

    Attributes:
      present: Number of examples with a label.
      missing: Number of examples without one.
      unknown: Number of parts of the labels that are not known, such as classes or points.
      classes: Class -> number of occurrences, for labels that are classes.
      count: Number of values of each component, for labels that are numbers.
      total: Their sum, for each component.
      low: Their minimum, for each component.
      high: Their maximum, for each component.
    """

    present: int = 0
    missing: int = 0
    unknown: int = 0
    classes: dict[int, int] = dataclasses.field(default_factory=dict)
    count: int = 0
    total: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros(1))
    low: np.ndarray = dataclasses.field(default_factory=lambda: np.full(1, np.inf))
    high: np.ndarray = dataclasses.field(default_factory=lambda: np.full(1, -np.inf))

    def add(self, contents: np.ndarray | None, unknown: int = 0) -> None:
        """Adds one label, as returned by `Task.label_values`; None for a missing one."""
        if contents is None:
            self.missing += 1
            return
        self.present += 1
        self.unknown += unknown
        if contents.dtype.kind in "biu":
            for name, count in zip(*np.unique(contents, return_counts=True), strict=True):
                self.classes[int(name)] = self.classes.get(int(name), 0) + int(count)
        elif contents.size:
            contents = contents.reshape(-1, contents.shape[-1] if contents.ndim > 1 else 1)
            self.count += len(contents)
            self.total = self.total + contents.sum(0, dtype=np.float64)
            self.low = np.minimum(self.low, contents.min(0))
            self.high = np.maximum(self.high, contents.max(0))

    def as_json(self, task: Task) -> dict[str, Any]:
        """Returns plain numbers; classes by name if the task has class names."""
        values: dict[str, Any] = {"present": self.present, "missing": self.missing}
        if self.unknown:
            values["unknown"] = self.unknown
        if self.classes:
            names = dict(enumerate(getattr(task, "class_names", ())))
            counts = sorted(self.classes.items())
            values["classes"] = {names.get(c, str(c)): count for c, count in counts}
        if self.count:
            moments = {"min": self.low, "mean": self.total / self.count, "max": self.high}
            values |= {
                name: x.tolist() if len(x) > 1 else float(x[0]) for name, x in moments.items()
            }
        return values

    def summary(self, task: Task) -> str:
        """Returns a short description for the user."""
        values, text = self.as_json(task), "none"
        if "classes" in values:
            text = _shares(values["classes"])
        elif "mean" in values:
            parts = zip(*(np.ravel(values[name]) for name in ("min", "max", "mean")), strict=True)
            shown = [f"{low:.4g} .. {high:.4g}, mean {mean:.4g}" for low, high, mean in parts]
            more = ["..."] if len(shown) > MAX_CLASSES_SHOWN else []
            text = "; ".join(shown[:MAX_CLASSES_SHOWN] + more)
        return f"{text}; {self.unknown} not known" if self.unknown else text


def _shares(classes: dict[str, int]) -> str:
    """Returns the most and the least frequent classes with their shares."""
    total = sum(classes.values())
    ranked = sorted(classes, key=lambda name: -classes[name])
    shares = [f"{name} {100 * classes[name] / total:.3g} %" for name in ranked]
    if len(shares) > MAX_CLASSES_SHOWN:
        shares = [*shares[: MAX_CLASSES_SHOWN - 1], "...", shares[-1]]
    return f"{len(classes)} classes: {', '.join(shares)}" if len(classes) > 1 else shares[0]


def label_statistics(
    tasks: tuple[Task, ...], split: Split
) -> tuple[dict[str, LabelStatistics], dict[int, str]]:
    """Reads an entire split.

    Returns:
      The statistics of each task's labels, and the examples that cannot be used: {row: message}.
    """
    statistics = {task.name: LabelStatistics() for task in tasks}
    unusable: dict[int, str] = {}
    for row, example in enumerate(read_examples(split)):
        if isinstance(example, ValueError):
            unusable[row] = str(example)
            continue
        for task in tasks:
            present, label = (example[part][task.name] for part in ("present", "labels"))
            values = np.asarray(task.label_values(label)) if present else None
            unknown = task.num_unknown(label) if present else 0
            statistics[task.name].add(values, unknown)
    return statistics, unusable


def unseen_classes(
    tasks: Sequence[Task], statistics: Mapping[str, LabelStatistics]
) -> Iterator[Note]:
    """Yields a warning for each task with classes that no training label has."""
    for task in tasks:
        count, seen = getattr(task, "num_classes", 0) or 0, statistics[task.name].classes
        unseen = [i for i in range(count) if i not in seen]
        if unseen and statistics[task.name].present:
            names = dict(enumerate(getattr(task, "class_names", ())))
            listed = ", ".join(names.get(i, str(i)) for i in unseen[:MAX_CLASSES_SHOWN])
            more = ", ..." if len(unseen) > MAX_CLASSES_SHOWN else ""
            text = f"task {task.name!r}: no training label has class {listed}{more}"
            yield Note("warning", text, len(unseen), "")
