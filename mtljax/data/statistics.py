"""What is in a data set: how many examples, which labels, how often, and what is missing."""

import dataclasses
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from mtljax.data.base import Split
from mtljax.data.pipeline import READERS
from mtljax.tasks import Task


@dataclasses.dataclass
class Tally:
    """Of one task's labels in one split.

    Attributes:
      present, missing: Numbers of examples.
      classes: Class -> how often, if labels are classes.
      count, total, low, high: Of the numbers in the labels otherwise.
    """

    present: int = 0
    missing: int = 0
    classes: dict[int, int] = dataclasses.field(default_factory=dict)
    count: int = 0
    total: float = 0.0
    low: float = np.inf
    high: float = -np.inf

    def add(self, contents: np.ndarray | None) -> None:
        """One more label, as `Task.contents` gives it; None: it is missing."""
        if contents is None:
            self.missing += 1
            return
        self.present += 1
        if not contents.size:
            return
        if contents.dtype.kind in "biu":
            for name, times in zip(*np.unique(contents, return_counts=True), strict=True):
                self.classes[int(name)] = self.classes.get(int(name), 0) + int(times)
        else:
            self.count += contents.size
            self.total += float(contents.sum(dtype=np.float64))
            self.low = min(self.low, float(contents.min()))
            self.high = max(self.high, float(contents.max()))

    def as_json(self, task: Task) -> dict[str, Any]:
        """As plain numbers; classes by their names, where they have any."""
        found: dict[str, Any] = {"present": self.present, "missing": self.missing}
        if self.classes:
            names = getattr(task, "class_names", ())
            found["classes"] = {
                names[c] if 0 <= c < len(names) else str(c): times
                for c, times in sorted(self.classes.items())
            }
        if self.count:
            found |= {"min": self.low, "mean": self.total / self.count, "max": self.high}
        return found

    def words(self, task: Task) -> str:
        """In a few words, for people."""
        found = self.as_json(task)
        if "classes" in found:
            return _shares(found["classes"])
        if "mean" in found:
            return f"{found['min']:.4g} .. {found['max']:.4g}, mean {found['mean']:.4g}"
        return "nothing"


SHOWN = 6
"""Most classes whose share is told."""


def _shares(classes: dict[str, int]) -> str:
    """The most and the least frequent classes, with their shares."""
    total = sum(classes.values())
    ranked = sorted(classes, key=lambda name: -classes[name])
    told = [f"{name} {100 * classes[name] / total:.3g} %" for name in ranked]
    if len(told) > SHOWN:
        told = [*told[: SHOWN - 1], "...", told[-1]]
    return f"{len(classes)} classes: {', '.join(told)}" if len(classes) > 1 else ", ".join(told)


def examples_of(split: Split) -> Iterator[dict[str, Any]]:
    """All examples in order, read by several threads some way ahead."""
    with ThreadPoolExecutor(READERS) as pool:
        for start in range(0, len(split), 64):
            rows = range(start, min(start + 64, len(split)))
            yield from pool.map(split.__getitem__, rows)


def tally(tasks: tuple[Task, ...], split: Split) -> dict[str, Tally]:
    """Reads a whole split and counts what is in its labels.

    Raises:
      ValueError: A label that its task cannot learn.
    """
    found = {task.name: Tally() for task in tasks}
    for example in examples_of(split):
        for task in tasks:
            there = bool(example["present"][task.name])
            label = example["labels"][task.name]
            found[task.name].add(np.asarray(task.contents(label)) if there else None)
    return found
