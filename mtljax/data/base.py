"""Interface of data sources: splits of labeled images, and statistics of the training split."""

import contextlib
import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import jax
import numpy as np

from mtljax.data.membership import Membership
from mtljax.data.notes import Note
from mtljax.tasks import Task
from mtljax.utils.registry import nearest
from mtljax.utils.tree import num_examples

Example = Mapping[str, Any]
"""{"image": [H, W, C], "labels": {task: label}, "present": {task: bool}}"""
Batch = Mapping[str, Any]
"""Examples stacked along a leading axis B."""


class LabelRequest(NamedTuple):
    """Label that a source must provide for a task."""

    task: Task
    """Task that reads the label."""
    key: str
    """Name of the label in the source: a label, a column, a feature or a folder."""


class Split(Protocol):
    """Labeled images with random access.

    Optional methods: `take(rows [n]) -> batch`, if faster; `place(row) -> str`, the file and row of
    an example; `membership(row) -> Membership`, its group and stratum for cross-validation; and
    `faults() -> {row: message}`, examples that are known to raise ValueError if read.
    """

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Example: ...


def place_of(split: object, row: int) -> str:
    """Returns the file and row of an example, "" if its split does not know them."""
    place = getattr(split, "place", None)
    return place(row) if place else ""


def membership_of(split: object, row: int) -> Membership:
    """Returns the group and the stratum of an example; both empty if its split has none."""
    membership = getattr(split, "membership", None)
    return membership(row) if membership else Membership()


def faults_of(split: object) -> Mapping[int, str]:
    """Returns the examples that are known to be unusable: {row: message with the place}."""
    faults = getattr(split, "faults", None)
    return faults() if faults else {}


def first_usable(split: Split) -> Example:
    """Returns the first example that can be read; raises the ValueError of the first if none."""
    for row in range(len(split)):
        with contextlib.suppress(ValueError):
            return split[row]
    return split[0]


@dataclasses.dataclass(frozen=True)
class Arrays:
    """Split in memory: NumPy arrays with the examples along the first axis."""

    image: Any
    """Array of images, or a pytree of arrays for models with several inputs."""
    labels: Mapping[str, Any]
    """Task -> array of labels, or a pytree of arrays."""
    present: Mapping[str, np.ndarray]
    """Task -> mask [N] of the examples with a label."""
    origin: Split | None = None
    """Split that the arrays were read from."""
    members: tuple[Membership, ...] = ()
    """Group and stratum of each example; empty: those of `origin`."""

    def __len__(self) -> int:
        return num_examples(self.image)

    def place(self, row: int) -> str:
        """Returns the file and row of an example, "" if unknown."""
        return "" if self.origin is None else place_of(self.origin, row)

    def membership(self, row: int) -> Membership:
        """Returns the group and the stratum of an example."""
        if self.members or self.origin is None:
            return self.members[row] if self.members else Membership()
        return membership_of(self.origin, row)

    def __getitem__(self, index: int | slice) -> Example:
        """Returns one example, or a batch for a slice."""
        return self.take(index)

    def take(self, index: int | slice | np.ndarray) -> Batch:
        """Returns the examples at `index`, in its order."""
        batch = {"image": self.image, "labels": dict(self.labels), "present": dict(self.present)}
        return jax.tree.map(lambda x: x[index], batch)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Source:
    """Data set with disjoint training, validation and test splits.

    Attributes:
      train: Training split.
      validation: Validation split.
      test: Test split.
      mean: Mean of the *training* images over all examples and positions, in the images' unit.
      std: Standard deviation of the training images, likewise.
      low: Value of black in that unit.
      high: Value of white in that unit.
      notes: Values that were dropped, clipped, converted or not matched.
      fixed_splits: Reason why examples must remain in their splits, so that the source has no
        folds; empty if they may be divided in another way.
      folds: Hash of the division into folds, if test is one fold of a cross-validation.
      unusable: Splits that lack examples or labels, and what they lack: {split: message}. A source
        with some may be evaluated on the others; see `make_source`.
      tasks: The requested tasks, with what was derived from the data, in the order of the requests;
        empty for a source without requests.
    """

    train: Split
    validation: Split
    test: Split
    mean: float | tuple[float, ...]
    std: float | tuple[float, ...]
    low: float
    high: float
    notes: tuple[Note, ...] = ()
    fixed_splits: str = ""
    folds: str = ""
    unusable: Mapping[str, str] = dataclasses.field(default_factory=dict)
    tasks: tuple[Task, ...] = ()

    def splits(self) -> dict[str, Split]:
        """Returns the three splits by name."""
        return {"train": self.train, "validation": self.validation, "test": self.test}


@dataclasses.dataclass(frozen=True)
class ChangedSplit:
    """Base class of splits whose row i is row i of another split, changed."""

    split: Split
    """Split that is changed."""

    def __len__(self) -> int:
        return len(self.split)

    def place(self, row: int) -> str:
        """Returns the file and row of an example, "" if unknown."""
        return place_of(self.split, row)

    def membership(self, row: int) -> Membership:
        """Returns the group and the stratum of an example."""
        return membership_of(self.split, row)

    def faults(self) -> Mapping[int, str]:
        """Returns the examples that are known to be unusable."""
        return faults_of(self.split)


@dataclasses.dataclass(frozen=True)
class SelectedLabels(ChangedSplit):
    """Split restricted to some labels, under new names."""

    keys: Mapping[str, str]
    """New name -> name in `split`."""

    def __getitem__(self, index: int) -> Example:
        return self._select(self.split[index])

    def _select(self, examples: Batch) -> Example:
        pick = lambda part: {name: examples[part][key] for name, key in self.keys.items()}
        return {**examples, "labels": pick("labels"), "present": pick("present")}


class SelectedLabelBatches(SelectedLabels):
    """`SelectedLabels` of a split with `take`."""

    def take(self, rows: np.ndarray) -> Batch:
        """Returns the examples at `rows`, in their order."""
        return self._select(self.split.take(rows))  # type: ignore[attr-defined]  # optional method


def select_labels(source: Source, requests: Sequence[LabelRequest], name: str) -> Source:
    """Returns the source `name` with the requested labels only, named after their tasks."""
    require_labels(f"source {name!r}", requests, first_usable(source.train)["labels"])
    keys = {request.task.name: request.key for request in requests}

    def select(split: Split) -> Split:
        if isinstance(split, Arrays):
            pick = lambda part: {name: part[key] for name, key in keys.items()}
            labels, present = pick(split.labels), pick(split.present)
            return dataclasses.replace(split, labels=labels, present=present)
        return (SelectedLabelBatches if hasattr(split, "take") else SelectedLabels)(split, keys)

    tasks = tuple(request.task for request in requests)
    return dataclasses.replace(map_splits(source, select), tasks=tasks)


def require_labels(
    place: str, requests: Iterable[LabelRequest], available: Iterable[str], noun: str = "labels"
) -> None:
    """Raises ValueError, with the nearest name, for a requested label that is not available."""
    available = list(available)
    for task, key in requests:
        if key not in available:
            raise ValueError(
                f"{place} has no {noun} {key!r} for task {task.name!r}{nearest(key, available)}"
            )


def require_one_image(source: Source) -> None:
    """Raises ValueError unless each example has one image [H, W, C], as the trunks take."""
    image = first_usable(source.train)["image"]
    if not hasattr(image, "ndim") or image.ndim != 3:
        has = f"inputs of shape {image.shape}" if hasattr(image, "ndim") else "several inputs"
        raise ValueError(
            f"the trunks take one image [H, W, C] per example, but the data has {has}; use a model "
            "of your own with mtljax.make_train_step"
        )


def map_splits(source: Source, change: Callable[[Split], Split]) -> Source:
    """Returns the source with `change` applied to each split."""
    train, validation, test = map(change, source.splits().values())
    return dataclasses.replace(source, train=train, validation=validation, test=test)
