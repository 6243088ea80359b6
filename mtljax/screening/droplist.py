"""List of examples and labels that screening recommends to leave out of training."""

from collections.abc import Sequence
from pathlib import Path

from mtljax.data.base import Source
from mtljax.data.droplist import example_digest
from mtljax.data.pool import ExampleId
from mtljax.screening.findings import ERRORS, Finding
from mtljax.utils.files import json_text, write_text
from mtljax.utils.text import count, joined

TRAINING_SPLITS = ("train", "validation")
"""Splits that doubtful examples are dropped from. The test split loses broken examples only."""

Drop = tuple[ExampleId, str | None]
"""Example to leave out, or, with the name of a task, its label only."""


def to_drop(findings: Sequence[Finding]) -> dict[Drop, list[str]]:
    """Selects the examples and labels to drop and returns the reasons for each.

    Broken examples are dropped from every split; duplicates and leaks from the training and
    validation splits, and only the label where it is doubtful. Images of unusual appearance, and
    similar images with the same labels, are not dropped.
    """
    reasons: dict[Drop, list[str]] = {}
    for finding in findings:
        broken = finding.kind in ERRORS and finding.kind != "leak"
        doubtful = finding.kind in ("leak", "duplicate", "label")
        if broken or (doubtful and finding.place.split in TRAINING_SPLITS):
            reason = f"{finding.kind}: {finding.detail}"
            reasons.setdefault((finding.place, finding.task), []).append(reason)
    return {
        (place, task): why
        for (place, task), why in reasons.items()
        if task is None or (place, None) not in reasons
    }


def write_drop(path: Path, findings: Sequence[Finding], source: Source) -> str:
    """Writes the list and returns its length in words."""
    splits, drops = source.splits(), to_drop(findings)
    digests = {place: example_digest(splits[place.split], place.row) for place, _ in drops}
    lines = [
        json_text(
            {
                **place._asdict(),
                **({} if task is None else {"task": task}),
                "image": digests[place],
                "reasons": reasons,
            }
        )
        for (place, task), reasons in sorted(
            drops.items(), key=lambda item: (item[0][0], item[0][1] or "")
        )
    ]
    write_text(path, "".join(lines))
    labels = sum(task is not None for _, task in drops)
    amounts = [(len(drops) - labels, "example"), (labels, "label")]
    return joined([count(amount, noun) for amount, noun in amounts if amount]) or "no examples"
