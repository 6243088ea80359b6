"""Splits whose examples are read, validated and resized on access."""

import abc
import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple, Protocol

import jax
import numpy as np
from jaxtyping import Num

from mtljax.data.base import (
    Example,
    LabelRequest,
    Source,
    Split,
    faults_of,
    membership_of,
    place_of,
)
from mtljax.data.membership import Membership
from mtljax.data.notes import Note, NoteCounter
from mtljax.data.pipeline import READER_THREADS
from mtljax.tasks import Task
from mtljax.tasks.base import Changes
from mtljax.tasks.warps import Pixels, Resize, resize_image
from mtljax.utils.text import error_prefix

MAX_CELLS = 10_000
"""Maximum number of different table cells of a split whose labels are retained."""
MAX_MOMENT_IMAGES = 1000
"""Maximum number of images over which mean and standard deviation are estimated."""


class RawExample(NamedTuple):
    """Example as stored by a source."""

    image: Num[np.ndarray, "H W C"]
    """Pixels as stored, before they are resized."""
    labels: Mapping[str, Any]
    """Task -> argument of `Task.parse`, in pixels of this image; None for a missing label."""
    place: str
    """File and row of the example, for error messages."""
    size: Pixels | None = None
    """Height and width in whose pixels the labels are; None: those of `image`."""


class StoredLabel(abc.ABC):
    """Raw label that is decoded when it is read."""

    size: Pixels
    """Height and width of the image that it belongs to."""

    @abc.abstractmethod
    def read(self) -> Any:
        """Returns the argument of `Task.parse`."""


class RawExamples(Protocol):
    """Raw examples with random access. Must be picklable, for worker processes."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> RawExample: ...


@dataclasses.dataclass(frozen=True)
class LazySplit:
    """Split of raw examples, read on access.

    Attributes:
      tasks: Tasks that parse the labels.
      size: Height and width to resize images and labels to; None if all images have one size.
      changes: What `Task.clean` changed in the labels that were read from files or arrays so far,
        by row and task.
    """

    examples: RawExamples
    """May have the methods `place`, `faults` and `membership` of a `Split`."""
    tasks: tuple[Task, ...]
    size: Pixels | None
    changes: dict[tuple[int, str], Changes] = dataclasses.field(
        default_factory=dict, compare=False, repr=False
    )
    _valid: "ValidLabels" = dataclasses.field(
        default_factory=lambda: ValidLabels(), compare=False, repr=False
    )

    def __len__(self) -> int:
        return len(self.examples)

    def place(self, row: int) -> str:
        """Returns the file and row of an example, "" if unknown."""
        return place_of(self.examples, row)

    def membership(self, row: int) -> Membership:
        """Returns the group and the stratum of an example."""
        return membership_of(self.examples, row)

    def faults(self) -> Mapping[int, str]:
        """Returns the examples that are known to be unusable."""
        return faults_of(self.examples)

    def __getitem__(self, index: int) -> Example:
        """Returns one example; a ValueError names the file and row."""
        raw = self.examples[index]
        old: Pixels = raw.size or raw.image.shape[:2]
        resize = Resize(old=old, size=self.size or old)
        labels, present = {}, {}
        for task in self.tasks:
            value = raw.labels[task.name]
            label: Any = None
            changed: Changes = {}
            if value is not None:
                label, changed = self._valid.clean(index, task, value, old, raw.place)
            if changed and isinstance(value, np.ndarray):  # cells are counted by their source
                self.changes[index, task.name] = changed
            present[task.name] = np.bool_(label is not None)
            with error_prefix(raw.place):
                labels[task.name] = (
                    task.placeholder(resize.size) if label is None else task.warp(label, resize)
                )
        image = resize_image(raw.image, resize.size)
        return {"image": image, "labels": labels, "present": present}


class ValidLabels:
    """Labels of a split that were checked already, so that later epochs need not check them."""

    def __init__(self) -> None:
        self._rows: set[tuple[int, str]] = set()
        self._cells: dict[tuple[str, type, Any], tuple[Any, Changes]] = {}

    def clean(
        self, row: int, task: Task, value: Any, size: Pixels, place: str
    ) -> tuple[Any, Changes]:
        """Returns `clean_label`, checked at the first call only."""
        if isinstance(value, str | int | float | bool) and type(task).clean is Task.clean:
            cell = task.name, type(value), value
            if (known := self._cells.get(cell)) is None:
                known = clean_label(task, value, size, place)
                if len(self._cells) < MAX_CELLS:
                    self._cells[cell] = known
            return known
        checks = (row, task.name) not in self._rows
        label, changed = clean_label(task, value, size, place, checks=checks)
        self._rows.add((row, task.name))
        return label, changed


def notes_of_reading(source: Source) -> tuple[Note, ...]:
    """Returns what was changed in the labels that were read so far."""
    splits = {id(split): split for part in source.splits().values() for split in _lazy_splits(part)}
    notes = NoteCounter()
    for split in splits.values():
        for (row, task), changed in sorted(split.changes.items()):
            for (kind, what), count in changed.items():
                notes.add(kind, f"{what} of task {task!r}", split.place(row), count)
    return notes.notes()


def _lazy_splits(split: Any) -> Iterator[LazySplit]:
    """Returns the lazy splits that a split is composed of."""
    if isinstance(split, LazySplit):
        yield split
    parts = getattr(split, "splits", {})
    parts = parts.values() if isinstance(parts, Mapping) else parts
    for part in (getattr(split, "split", None), getattr(split, "origin", None), *parts):
        if part is not None:
            yield from _lazy_splits(part)


def tasks_of(requests: Sequence[LabelRequest]) -> tuple[Task, ...]:
    """Returns the tasks of label requests."""
    return tuple(request.task for request in requests)


def clean_label(
    task: Task, value: Any, size: Pixels, place: str, *, checks: bool = True
) -> tuple[Any, Changes]:
    """Returns a raw value as a valid label, and what was changed in it; see `Task.clean`.

    Args:
      checks: Check the label, which is needed once.
    """
    try:
        label, changed = task.clean(task.parse(value), size)
        if label is None or not checks:
            return label, changed
        _check_form(task, label, size)
        task.check(jax.tree.map(lambda leaf: np.asarray(leaf)[None], label))
    except ValueError as error:
        reason = str(error).removeprefix(f"task {task.name!r}: ").replace(" of example 0", "")
        raise ValueError(f"{place}: task {task.name!r}: {reason}") from None
    return label, changed


def _check_form(task: Task, label: Any, size: Pixels) -> None:
    """Raises ValueError unless a label has numbers, in the shape of a missing label if known."""
    leaves = jax.tree.leaves(label)
    if any(np.asarray(leaf).dtype.kind not in "buif" for leaf in leaves):
        raise ValueError(f"a label that is no number; define {type(task).__name__}.parse")
    if type(task).placeholder is Task.placeholder:
        return
    for leaf, expected in zip(leaves, jax.tree.leaves(task.placeholder(size)), strict=True):
        if np.shape(leaf) != np.shape(expected):
            shapes = f"{np.shape(leaf)} for an image of {size[0]} x {size[1]} pixels"
            raise ValueError(f"a label of shape {shapes}; must be {np.shape(expected)}")


def source_of_splits(
    splits: Mapping[str, Split], low: float, high: float, tasks: tuple[Task, ...] = ()
) -> Source:
    """Returns a source of the splits "train", "validation" and "test", with estimated moments."""
    mean, std = estimate_moments(splits["train"])
    train, validation, test = (splits[name] for name in ("train", "validation", "test"))
    return Source(
        train=train,
        validation=validation,
        test=test,
        mean=mean,
        std=std,
        low=low,
        high=high,
        tasks=tasks,
    )


def estimate_moments(split: Split) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Returns mean and standard deviation of each channel over at most 1,000 evenly spaced images.

    Unreadable images are skipped: training reports them when it reads them. Without any other, the
    result is (0.0,), (1.0,).
    """
    rows = np.unique(np.linspace(0, len(split) - 1, min(len(split), MAX_MOMENT_IMAGES)).astype(int))
    count, total, square = 0, 0.0, 0.0

    def sums(row: int) -> tuple[int, Any, Any]:
        try:
            image = np.array(split[int(row)]["image"], np.float64)
        except ValueError:
            return 0, 0.0, 0.0
        height, width, _ = image.shape
        return height * width, image.sum((0, 1)), np.square(image, out=image).sum((0, 1))

    with ThreadPoolExecutor(READER_THREADS) as pool:
        for pixels, values, squares in pool.map(sums, rows):
            count, total, square = count + pixels, total + values, square + squares
    if not count:
        return (0.0,), (1.0,)
    mean = np.asarray(total) / count
    std = np.sqrt(np.maximum(np.asarray(square) / count - mean**2, 0))
    return tuple(map(float, mean)), tuple(float(s) if s > 1e-6 else 1.0 for s in std)
