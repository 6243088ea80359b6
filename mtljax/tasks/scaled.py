"""Tasks whose labels have a typical value and a typical distance from it."""

import abc
import dataclasses
from collections.abc import Mapping
from typing import Any, Self

import numpy as np

from mtljax.tasks.base import Task


class ScaledTask(Task):
    """Base class of tasks with the fields `center` and `scale`; None: of the training labels."""

    @abc.abstractmethod
    def moments(self, labels: Any) -> Mapping[str, Any]:
        """Returns {"center": value, "scale": value} of training labels, {} if none is known."""

    @property
    def derived(self) -> tuple[str, ...]:
        return tuple(name for name in ("center", "scale") if getattr(self, name) is None)

    @property
    def is_resolved(self) -> bool:
        return True

    def resolve(self, labels: Any) -> Self:
        moments = self.moments(labels)
        values = {name: rounded(moments[name]) for name in self.derived if name in moments}
        return dataclasses.replace(self, **values)


def rounded(values: Any) -> Any:
    """Returns a number, or a tuple of numbers, of six significant digits, for config.json."""
    numbers = tuple(float(f"{value:.6g}") for value in np.ravel(values))
    return numbers if np.ndim(values) else numbers[0]
