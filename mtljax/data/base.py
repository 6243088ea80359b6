"""What a data source gives: three splits of labelled images, and the statistics of one of them."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import jax
import numpy as np

from mtljax.tasks import Task
from mtljax.utils.registry import nearest


class Wanted(NamedTuple):
    """A label that a task wants of a source."""

    task: Task
    key: str
    """Where the source has it: the name of a label, a column, a feature, a folder."""


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

    def parts(self) -> dict[str, Split]:
        """The three splits by name."""
        return {"train": self.train, "validation": self.validation, "test": self.test}


@dataclasses.dataclass(frozen=True)
class Selected:
    """A split with some of its labels only, under other names."""

    split: Split
    keys: Mapping[str, str]
    """New name -> the split's own."""

    def __len__(self) -> int:
        return len(self.split)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return self._pick(self.split[index])

    def _pick(self, examples: dict[str, Any]) -> dict[str, Any]:
        own = lambda part: {name: examples[part][key] for name, key in self.keys.items()}
        return {**examples, "labels": own("labels"), "present": own("present")}


class SelectedBatches(Selected):
    """The same of a split that makes several examples at once."""

    def take(self, rows: np.ndarray) -> dict[str, Any]:
        """The examples at `rows`, in their order."""
        return self._pick(self.split.take(rows))  # type: ignore[attr-defined]


def select(source: Source, wanted: Sequence[Wanted], name: str) -> Source:
    """The source with the wanted labels only, called after their tasks.

    Args:
      source: Any.
      wanted: Which of its labels, and for which tasks.
      name: What to call the source in messages.

    Raises:
      ValueError: It has no such label.
    """
    known = source.train[0]["labels"]
    for task, key in wanted:
        if key not in known:
            whose = "" if key == task.name else f" {key!r}"
            raise ValueError(
                f"source {name!r} has no labels{whose} for task {task.name!r}{nearest(key, known)}"
            )
    keys = {task.name: key for task, key in wanted}

    def pick(split: Split) -> Split:
        if not isinstance(split, Arrays):
            return (SelectedBatches if hasattr(split, "take") else Selected)(split, keys)
        own = lambda part: {name: part[key] for name, key in keys.items()}
        return Arrays(split.image, own(split.labels), own(split.present))

    return with_parts(source, pick)


def with_parts(source: Source, change: Callable[[Split], Split]) -> Source:
    """The source with every split changed."""
    train, validation, test = map(change, source.parts().values())
    return dataclasses.replace(source, train=train, validation=validation, test=test)
