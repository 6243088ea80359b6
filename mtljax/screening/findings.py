"""What screening finds, and the examples of all splits under one numbering."""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from mtljax.data.base import Source, Split

ERRORS = {
    "unreadable": "cannot be read, or its label is none that its task can learn",
    "not finite": "has pixels that are NaN or infinite",
    "out of range": "has pixels beyond black and white, or far beyond those of the others",
    "leak": "is, but for noise, an image of another split",
}
WARNINGS = {
    "duplicate": "is, but for noise, an earlier image of the same split",
    "label": "has a label that networks trained on the other examples find improbable",
    "dark": "is darker than photos are",
    "light": "is lighter than photos are",
    "blurry": "is blurred",
    "low information": "has hardly any content",
    "odd size": "has another size than most",
    "odd aspect ratio": "is far from square",
}
KINDS = {**ERRORS, **WARNINGS}
"""Kind -> what such an example is; errors are what no data should have."""


class Place(NamedTuple):
    """An example."""

    split: str
    row: int

    def __str__(self) -> str:
        return f"{self.split} {self.row}"


class Finding(NamedTuple):
    """Something about one example."""

    place: Place
    kind: str
    """One of `KINDS`."""
    detail: str
    like: Place | None = None
    """The other example, of duplicates and leaks."""


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


def by_kind(findings: Sequence[Finding]) -> Iterator[tuple[str, list[Finding]]]:
    """Every kind that was found, errors first, with its findings."""
    for kind in KINDS:
        found = [finding for finding in findings if finding.kind == kind]
        if found:
            yield kind, found
