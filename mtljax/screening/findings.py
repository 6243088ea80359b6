"""What screening finds, and the examples of all splits under one numbering."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from mtljax.data.pool import Place

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


class Finding(NamedTuple):
    """Something about one example."""

    place: Place
    kind: str
    """One of `KINDS`."""
    detail: str
    like: Place | None = None
    """The other example, of duplicates and leaks."""


def by_kind(findings: Sequence[Finding]) -> Iterator[tuple[str, list[Finding]]]:
    """Every kind that was found, errors first, with its findings."""
    for kind in KINDS:
        found = [finding for finding in findings if finding.kind == kind]
        if found:
            yield kind, found
