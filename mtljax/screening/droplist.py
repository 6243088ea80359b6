"""List of examples that screening recommends to leave out of training."""

from collections.abc import Sequence
from pathlib import Path

from mtljax.data.base import Source
from mtljax.data.droplist import example_digest
from mtljax.data.pool import ExampleId
from mtljax.screening.findings import ERRORS, Finding
from mtljax.utils.files import json_text, write_text

TRAINING_SPLITS = ("train", "validation")
"""Splits that doubtful examples are dropped from. The test split loses broken examples only."""


def examples_to_drop(findings: Sequence[Finding]) -> dict[ExampleId, list[str]]:
    """Selects the examples to drop and returns the reasons for each.

    Broken examples are dropped from every split; duplicates, leaks and doubtful labels from the
    training and validation splits. Images of unusual appearance are not dropped.
    """
    reasons: dict[ExampleId, list[str]] = {}
    for finding in findings:
        broken = finding.kind in ERRORS and finding.kind != "leak"
        doubtful = finding.kind in ("leak", "duplicate", "label")
        if broken or (doubtful and finding.place.split in TRAINING_SPLITS):
            reason = f"{finding.kind}: {finding.detail}"
            reasons.setdefault(finding.place, []).append(reason)
    return reasons


def write_drop(path: Path, findings: Sequence[Finding], source: Source) -> int:
    """Writes the list and returns its length."""
    splits = source.splits()
    digest = lambda place: example_digest(splits[place.split], place.row)
    lines = [
        json_text({**place._asdict(), "image": digest(place), "reasons": reasons})
        for place, reasons in sorted(examples_to_drop(findings).items())
    ]
    write_text(path, "".join(lines))
    return len(lines)
