"""Examples of several splits under one index, and digests of their images."""

import dataclasses
import hashlib
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from mtljax.data.base import Example, Source, Split, faults_of, membership_of, place_of
from mtljax.data.membership import Membership


class ExampleId(NamedTuple):
    """Split and row of an example."""

    split: str
    """Name of the split."""
    row: int
    """Index in the split."""

    def __str__(self) -> str:
        return f"{self.split} {self.row}"


@dataclasses.dataclass(frozen=True)
class Pool:
    """Split composed of selected examples of several splits."""

    splits: Mapping[str, Split]
    """Name -> split."""
    places: Sequence[ExampleId]
    """Selected examples, in order."""

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, index: int) -> Example:
        split, row = self.places[index]
        return self.splits[split][row]

    def place(self, row: int) -> str:
        """Returns the file and row of an example, "" if unknown."""
        place = self.places[row]
        return place_of(self.splits[place.split], place.row)

    def membership(self, row: int) -> Membership:
        """Returns the group and the stratum of an example."""
        place = self.places[row]
        return membership_of(self.splits[place.split], place.row)

    def faults(self) -> Mapping[int, str]:
        """Returns the examples that are known to be unusable."""
        known = {name: faults_of(split) for name, split in self.splits.items()}
        return {
            row: known[split][index]
            for row, (split, index) in enumerate(self.places)
            if index in known[split]
        }

    def at(self, rows: Sequence[int] | np.ndarray) -> "Pool":
        """Returns the pool of the examples at `rows`."""
        return Pool(self.splits, [self.places[int(row)] for row in rows])


def pool_of(source: Source) -> Pool:
    """Returns all examples of a source."""
    sizes = {name: len(split) for name, split in source.splits().items()}
    places = [ExampleId(name, row) for name, size in sizes.items() for row in range(size)]
    return Pool(source.splits(), places)


def image_digest(image: np.ndarray) -> str:
    """Returns a hash of an image's pixels, shape and type."""
    description = f"{image.dtype} {image.shape}".encode()
    return hashlib.sha256(description + image.tobytes()).hexdigest()
