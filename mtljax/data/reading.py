"""Examples made when they are asked for: read, checked, and brought to one size."""

import dataclasses
from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol

import jax
import numpy as np
from jaxtyping import Num

from mtljax.data.base import Split
from mtljax.tasks import Task
from mtljax.tasks.warps import Pixels, Resize, resize_image

SAMPLE = 1000
"""Most images that mean and standard deviation are taken over."""


class Raw(NamedTuple):
    """One example as a source has it."""

    image: Num[np.ndarray, "H W C"]
    labels: Mapping[str, Any]
    """Task -> what `Task.read` takes, in the pixels of this image; None where there is none."""
    place: str
    """Where it comes from, for messages: a file and a row."""


class Raws(Protocol):
    """Raw examples with random access; it is sent to worker processes, so it can be pickled."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Raw: ...


@dataclasses.dataclass(frozen=True)
class Examples:
    """A split of raw examples.

    Attributes:
      raws: The examples.
      tasks: Whose labels to make.
      size: Height and width to bring images and labels to. None: all images have one size.
    """

    raws: Raws
    tasks: tuple[Task, ...]
    size: Pixels | None

    def __len__(self) -> int:
        return len(self.raws)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """One example.

        Raises:
          ValueError: It cannot be read, or one of its labels is none; names its place.
        """
        raw = self.raws[index]
        old: Pixels = raw.image.shape[:2]
        resize = Resize(old=old, size=self.size or old)
        labels, present = {}, {}
        for task in self.tasks:
            value = raw.labels[task.name]
            present[task.name] = np.bool_(value is not None)
            labels[task.name] = (
                task.blank(resize.size)
                if value is None
                else task.warp(label_of(task, value, old, raw.place), resize)
            )
        image = resize_image(raw.image, resize.size)
        return {"image": image, "labels": labels, "present": present}


def label_of(task: Task, value: Any, size: Pixels, place: str) -> Any:
    """A raw value as a task's label of an image of this size.

    Raises:
      ValueError: It is no such label; names its place.
    """
    try:
        label = task.read(value)
        for found, wanted in zip(
            jax.tree.leaves(label), jax.tree.leaves(task.blank(size)), strict=True
        ):
            if np.shape(found) != np.shape(wanted):
                raise ValueError(
                    f"a label of shape {np.shape(found)} for an image of {size[0]} x {size[1]} "
                    f"pixels; must be {np.shape(wanted)}"
                )
        task.check(jax.tree.map(lambda leaf: np.asarray(leaf)[None], label))
    except ValueError as error:
        reason = str(error).removeprefix(f"task {task.name!r}: ").replace(" of example 0", "")
        raise ValueError(f"{place}: task {task.name!r}: {reason}") from None
    return label


def sampled_moments(split: Split) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of each channel, over at most `SAMPLE` images, evenly spaced.

    What cannot be read is left out here: whoever learns from it is told.

    Raises:
      ValueError: None of them can be read.
    """
    rows = np.unique(np.linspace(0, len(split) - 1, min(len(split), SAMPLE)).astype(int))
    count, total, square, unreadable = 0, 0.0, 0.0, ValueError("there is no image")
    for row in rows:
        try:
            image = np.asarray(split[int(row)]["image"], np.float64)
        except ValueError as error:
            unreadable = error
            continue
        count += image.shape[0] * image.shape[1]
        total = total + image.sum((0, 1))
        square = square + (image**2).sum((0, 1))
    if not count:
        raise unreadable
    mean = np.asarray(total) / count
    std = np.sqrt(np.maximum(np.asarray(square) / count - mean**2, 0))
    return tuple(map(float, mean)), tuple(float(s) if s > 1e-6 else 1.0 for s in std)
