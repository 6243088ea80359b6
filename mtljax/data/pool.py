"""Examples of several splits under one numbering."""

import dataclasses
import hashlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from mtljax.data.base import Source, Split


class Place(NamedTuple):
    """An example."""

    split: str
    row: int

    def __str__(self) -> str:
        return f"{self.split} {self.row}"


@dataclasses.dataclass(frozen=True)
class Pool:
    """Some examples of several splits, as one split."""

    splits: Mapping[str, Split]
    places: Sequence[Place]

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, index: int) -> dict[str, Any]:
        split, row = self.places[index]
        return self.splits[split][row]

    def at(self, rows: Sequence[int] | np.ndarray) -> "Pool":
        """A part of it."""
        return Pool(self.splits, [self.places[int(row)] for row in rows])


def pool_of(source: Source) -> Pool:
    """All examples of a source."""
    splits = source.parts()
    return Pool(splits, [Place(n, row) for n, split in splits.items() for row in range(len(split))])


def digest(image: np.ndarray) -> str:
    """A hash of an image's pixels, shape and type."""
    told = hashlib.sha256(f"{image.dtype} {image.shape}".encode())
    told.update(image.tobytes())
    return told.hexdigest()
