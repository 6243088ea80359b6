"""Boxes of one image, collected from annotation files of any format."""

from collections.abc import Iterable
from typing import Any, TypedDict

import numpy as np
from jaxtyping import Float

from mtljax.data.notes import NoteCounter
from mtljax.tasks.warps import Pixels

Box = tuple[float, float, float, float]
"""(y0, x0, y1, x1) in pixels: the pixel in row i covers i..i + 1."""
LARGEST = 1e9
"""Largest coordinate in pixels; files with larger numbers are damaged."""
ROUNDING = 0.01
"""Pixels by which a box may exceed its image without a note, for files with rounded numbers."""


class Boxes(TypedDict):
    """Boxes of one image, their classes, and the image's height and width."""

    boxes: Float[np.ndarray, "n 4"]
    """Corners (y0, x0, y1, x1) in pixels."""
    classes: list[Any]
    """Name of each box's class, or its index in formats without names."""
    size: Pixels
    """Height and width of the image in pixels."""


class BoxList:
    """List of the boxes of one image, clipped to it; `notes` counts what is clipped or dropped."""

    def __init__(self, size: Pixels, notes: NoteCounter) -> None:
        """Creates an empty list for an image of this height and width."""
        self._size, self._notes = size, notes
        self._boxes: list[Box] = []
        self._classes: list[Any] = []

    def add(self, box: Box, category: Any, place: str) -> None:
        """Adds a box, unless it has no area in the image."""
        clipped = clip(box, self._size)
        if clipped is None:
            self._notes.add("dropped", "boxes without area inside their image", place)
            return
        if any(abs(new - old) > ROUNDING for new, old in zip(clipped, box, strict=True)):
            self._notes.add("clipped", "boxes that exceed their image", place)
        self._boxes.append(clipped)
        self._classes.append(category)

    def label(self) -> Boxes:
        """Returns the boxes as a raw label of `Detection`."""
        boxes = np.asarray(self._boxes, np.float64).reshape(-1, 4)
        return {"boxes": boxes, "classes": list(self._classes), "size": self._size}


def clip(box: Box, size: Pixels) -> Box | None:
    """Returns a box clipped to its image; None if no area remains."""
    y0, x0, y1, x1 = box
    y0, x0, y1, x1 = max(y0, 0.0), max(x0, 0.0), min(y1, float(size[0])), min(x1, float(size[1]))
    return (y0, x0, y1, x1) if y1 > y0 and x1 > x0 else None


def finite(values: Iterable[Any]) -> list[float]:
    """Returns numbers of an annotation file.

    Raises:
      ValueError: One is no finite number, or larger than any coordinate (`LARGEST`); or the values
        are no list.
    """
    if not isinstance(values, Iterable):
        raise ValueError("must be a list of numbers")
    numbers = []
    for value in values:
        try:
            number = float("nan" if isinstance(value, bool) else value)
        except (TypeError, ValueError, OverflowError):
            number = float("nan")
        if not abs(number) <= LARGEST:
            raise ValueError("must have finite numbers only")
        numbers.append(number)
    return numbers
