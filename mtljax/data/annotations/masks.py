"""Masks of `Segmentation` from the polygons and run lengths of COCO annotations."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

from mtljax.data.annotations.boxes import ROUNDING, finite
from mtljax.data.lazy import StoredLabel
from mtljax.data.notes import NoteCounter
from mtljax.tasks.warps import Pixels

UNKNOWN = -1
"""Class of a region whose pixels have no class."""


@dataclasses.dataclass(frozen=True)
class Region:
    """Region of one object.

    Attributes:
      index: Class, or `UNKNOWN`.
      polygons: Polygons x, y, x, y, ...; a pixel belongs to the region if it is in any.
      runs: Without polygons: numbers of pixels outside and inside, in turn, down the columns.
    """

    index: int
    polygons: tuple[Float[np.ndarray, " n"], ...] = ()
    runs: Int[np.ndarray, " n"] = dataclasses.field(default_factory=lambda: np.zeros(0, np.int64))


@dataclasses.dataclass(frozen=True)
class StoredMask(StoredLabel):
    """Mask that is painted when it is read.

    Attributes:
      regions: Regions, painted in this order.
      background: Class of pixels in no region.
      unknown: Value of pixels without a class: those of `UNKNOWN` regions, and those in regions of
        different classes, as in torchvision's training on COCO.
    """

    size: Pixels
    regions: tuple[Region, ...]
    background: int
    unknown: int

    def read(self) -> Int[np.ndarray, "H W"]:
        """Returns the class of each pixel."""
        classes = np.full(self.size, self.background, np.int32)
        is_free = np.ones(self.size, bool)
        for region in self.regions:
            inside = _paint(region, self.size)
            value = self.unknown if region.index == UNKNOWN else region.index
            conflicts = inside & ~is_free & (classes != value)
            classes[inside], classes[conflicts] = value, self.unknown
            is_free &= ~inside
        return classes


def read_region(index: int, shape: Any, size: Pixels, place: str, notes: NoteCounter) -> Region:
    """Returns a region, clipped to its image.

    Args:
      shape: `segmentation` of a COCO annotation, not validated.
      place: File and object, for the notes.

    Raises:
      ValueError: The shape is invalid.
    """
    if isinstance(shape, list) and shape:
        polygons = []
        for polygon in shape:
            if not isinstance(polygon, list) or len(polygon) < 6 or len(polygon) % 2:
                raise ValueError("segmentation must have polygons [x, y, ...] of 3 points or more")
            points = np.asarray(finite(polygon)).reshape(-1, 2)
            polygons.append(np.clip(points, 0, size[::-1]).ravel())
            if np.abs(polygons[-1] - points.ravel()).max() > ROUNDING:
                notes.add("clipped", "polygons that exceed their image", place)
        return Region(index, polygons=tuple(polygons))
    if isinstance(shape, Mapping):
        counts = shape.get("counts")
        runs = _decompress(counts) if isinstance(counts, str) else counts
        whole = isinstance(runs, list) and all(type(run) is int and run >= 0 for run in runs)
        if not isinstance(runs, list) or not whole or sum(runs) != size[0] * size[1]:
            raise ValueError(
                f"segmentation must have counts with the sum {size[0]} x {size[1]} pixels"
            )
        return Region(index, runs=np.asarray(runs, np.int64))
    raise ValueError("must have segmentation: polygons, or run lengths")


def _decompress(text: str) -> list[int]:
    """Returns the run lengths of COCO's compressed text: differences in 5 bits per character."""
    runs: list[int] = []
    value, shift = 0, 0
    for character in text:
        code = ord(character) - 48
        if not 0 <= code < 64 or shift > 60:
            raise ValueError("segmentation has counts that are no compressed run lengths")
        value |= (code & 31) << shift
        shift += 5
        if not code & 32:
            if code & 16:
                value -= 1 << shift
            runs.append(value + (runs[-2] if len(runs) > 2 else 0))
            value, shift = 0, 0
    return runs


def _paint(region: Region, size: Pixels) -> Bool[np.ndarray, "H W"]:
    runs = region.runs
    if region.polygons:
        from pycocotools import mask

        parts = mask.frPyObjects([polygon.tolist() for polygon in region.polygons], *size)
        runs = np.asarray(_decompress(mask.merge(parts)["counts"].decode()), np.int64)
    is_inside = np.arange(len(runs)) % 2 == 1
    return np.repeat(is_inside, runs).reshape(size[::-1]).T
