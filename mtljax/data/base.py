"""What a data source gives: three splits of labelled images, and the statistics of one of them."""

import dataclasses
from collections.abc import Mapping
from typing import Any, Protocol

import jax
import numpy as np


class Split(Protocol):
    """Labelled images with random access.

    An example is `{"image": [H, W, C], "labels": {task: ...}, "present": {task: bool}}`. A split
    that makes several at once faster than one by one also has `take(rows [n]) -> batch`.
    """

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> dict[str, Any]: ...


@dataclasses.dataclass(frozen=True)
class Arrays:
    """A split that is in memory: NumPy arrays with the examples along the first axis."""

    image: np.ndarray
    labels: Mapping[str, Any]
    present: Mapping[str, np.ndarray]

    def __len__(self) -> int:
        return len(self.image)

    def __getitem__(self, index: int | slice) -> dict[str, Any]:
        """One example, or several as a batch."""
        return self.take(index)

    def take(self, index: int | slice | np.ndarray) -> dict[str, Any]:
        """The examples at `index`, in its order."""
        batch = {"image": self.image, "labels": dict(self.labels), "present": dict(self.present)}
        return jax.tree.map(lambda x: x[index], batch)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Source:
    """A data set, split.

    Attributes:
      train, validation, test: The splits; no example is in two of them.
      mean, std: Of the *training* images, over all examples and positions, in the images' own unit.
      low, high: What black and white are in that unit, for images that come from files.
    """

    train: Split
    validation: Split
    test: Split
    mean: float | tuple[float, ...]
    std: float | tuple[float, ...]
    low: float
    high: float
