"""The list of examples that screening recommends to leave out."""

import json
from collections.abc import Sequence
from pathlib import Path

from mtljax.data.base import Source
from mtljax.data.droplist import example_digest
from mtljax.data.pool import ExampleId
from mtljax.screening.findings import ERRORS, Finding
from mtljax.utils.files import write_text

LEARNED = ("train", "validation")
"""Splits that doubtful examples are left out of. The test split loses only what is broken."""


def to_drop(findings: Sequence[Finding]) -> dict[ExampleId, list[str]]:
    """What is left out, and why: all that is broken; of what is learned from, doubles and doubtful
    labels too. How images look is left to people."""
    dropped: dict[ExampleId, list[str]] = {}
    for finding in findings:
        broken = finding.kind in ERRORS and finding.kind != "leak"
        doubtful = finding.kind in ("leak", "duplicate", "label")
        if broken or (doubtful and finding.place.split in LEARNED):
            reason = f"{finding.kind}: {finding.detail}"
            dropped.setdefault(finding.place, []).append(reason)
    return dropped


def write_drop(path: Path, findings: Sequence[Finding], source: Source) -> int:
    """Writes the list and returns its length."""
    dropped = to_drop(findings)
    splits = source.splits()
    lines = [
        json.dumps(
            {
                "split": place.split,
                "row": place.row,
                "image": example_digest(splits[place.split], place.row),
                "reasons": reasons,
            }
        )
        for place, reasons in sorted(dropped.items())
    ]
    write_text(path, "".join(f"{line}\n" for line in lines))
    return len(lines)
