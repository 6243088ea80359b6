"""Base class of tasks with classes, whose number and names may be those of the data."""

import dataclasses
from collections.abc import Sequence
from typing import Any, ClassVar, Self

import jax
import numpy as np

from mtljax.tasks import checks
from mtljax.tasks.base import Task

MAX_LISTED = 6


@dataclasses.dataclass(frozen=True, kw_only=True)
class ClassTask(Task):
    """Task with `num_classes` classes."""

    num_classes: int = 0
    """Number of classes; 0: that of `class_names`, or of the data."""
    class_names: tuple[str, ...] = ()
    """Names of the classes in tables and reports; if empty, those of the data, or indices."""

    fewest_classes: ClassVar[int] = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.num_classes:
            object.__setattr__(self, "num_classes", len(self.class_names))
        if self.num_classes:
            checks.require_classes(self, self.fewest_classes)

    @property
    def derived(self) -> tuple[str, ...]:
        return () if self.num_classes else ("num_classes",)

    def with_classes(self, names: Sequence[str]) -> Self:
        if self.class_names:
            return self
        if self.num_classes not in (0, len(names)):
            listed = ", ".join(names[:MAX_LISTED]) + (", ..." if len(names) > MAX_LISTED else "")
            raise ValueError(
                f"task {self.name!r} has num_classes={self.num_classes}, but the data has "
                f"{len(names)} classes: {listed}"
            )
        return dataclasses.replace(self, num_classes=len(names), class_names=tuple(names))

    def resolve(self, labels: Any) -> Self:
        if self.num_classes:
            return self
        values = np.concatenate([self.label_values(label) for label in _examples(labels)])
        highest = int(values.max(initial=0))
        return dataclasses.replace(self, num_classes=max(highest + 1, self.fewest_classes))


def _examples(labels: Any) -> Sequence[Any]:
    """Returns the labels of a batch one by one."""
    count = len(jax.tree.leaves(labels)[0])
    return [jax.tree.map(lambda x, i=i: x[i], labels) for i in range(count)]
