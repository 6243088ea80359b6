"""Findings of data screening."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from mtljax.data.pool import ExampleId

ERRORS = {
    "unreadable": "cannot be read, or its label is invalid for its task",
    "not finite": "has pixels that are NaN or infinite",
    "out of range": "has pixels outside black..white, or far outside the range of the other images",
    "leak": "is, except for noise, an image of another split",
}
"""Kind of an error -> its description."""
WARNINGS = {
    "duplicate": "is another image of the same split, with the same pixels or other labels",
    "label": "has a label that networks trained on the other examples consider improbable",
}
"""Kind of a warning -> its description."""
NOTES = {
    "similar": "is, except for noise, another image of the same split, and has the same labels",
    "dark": "is darker than usual photos",
    "light": "is lighter than usual photos",
    "blurry": "is blurred",
    "low information": "has hardly any content",
    "odd size": "has an unusual size",
    "odd aspect ratio": "has an unusual aspect ratio",
}
"""Kind of a note -> its description."""
KINDS = {**ERRORS, **WARNINGS, **NOTES}
"""Kind -> description of such an example; errors must not occur in any data, and examples with
notes are not left out."""


class Finding(NamedTuple):
    """Finding about one example."""

    place: ExampleId
    """The example."""
    kind: str
    """One of `KINDS`."""
    detail: str
    """Numbers or values that the finding is based on."""
    like: ExampleId | None = None
    """The other example of a duplicate or leak."""
    task: str | None = None
    """Task of a doubtful label."""


class Screening(NamedTuple):
    """Result of screening."""

    findings: list[Finding]
    """At most one per example and kind, and per task for doubtful labels."""
    remarks: list[str]
    """Sentences on what was not judged or not listed, and warnings."""


def by_kind(findings: Sequence[Finding]) -> Iterator[tuple[str, list[Finding]]]:
    """Groups findings by kind, errors first; kinds without findings are left out."""
    for kind in KINDS:
        of_kind = [finding for finding in findings if finding.kind == kind]
        if of_kind:
            yield kind, of_kind
