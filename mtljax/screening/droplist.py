"""The list of examples that training leaves out, in a file: one JSON object a line."""

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from mtljax.data.base import Arrays, Source, Split
from mtljax.data.reading import sampled_moments
from mtljax.screening.findings import ERRORS, Finding, Place, Pool
from mtljax.screening.images import digest
from mtljax.utils.files import read_text, write_text

LEARNED = ("train", "validation")
"""Splits that doubtful examples are left out of. The test split loses only what is broken."""


def to_drop(findings: Sequence[Finding]) -> dict[Place, list[str]]:
    """What is left out, and why: all that is broken; of what is learned from, doubles and doubtful
    labels too. How images look is left to people."""
    dropped: dict[Place, list[str]] = {}
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
    splits = source.parts()
    lines = [
        json.dumps(
            {
                "split": place.split,
                "row": place.row,
                "image": _digest(splits[place.split], place.row),
                "reasons": reasons,
            }
        )
        for place, reasons in sorted(dropped.items())
    ]
    write_text(path, "".join(f"{line}\n" for line in lines))
    return len(lines)


def _digest(split: Split, row: int) -> str | None:
    """Of the image, None if it cannot be read."""
    try:
        return digest(np.asarray(split[row]["image"]))
    except Exception:  # whatever a source's reader raises
        return None


def read_drop(path: Path) -> dict[Place, str | None]:
    """Example -> hash of its image.

    Raises:
      ValueError: It is no such list.
    """
    try:
        lines = read_text(path).splitlines()
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror}") from None
    found: dict[Place, str | None] = {}
    for number, line in enumerate(lines, 1):
        try:
            told = json.loads(line)
            found[Place(str(told["split"]), int(told["row"]))] = told["image"]
        except (ValueError, KeyError, TypeError, RecursionError):
            raise ValueError(f"{path} line {number} is none that `screen --drop` wrote") from None
    return found


def without(source: Source, path: Path) -> Source:
    """The source without the examples in a list, and with the statistics of what is left.

    Raises:
      ValueError: It is no such list, of other data, or nothing is left of a split.
    """
    dropped, splits = read_drop(path), source.parts()
    for place, told in dropped.items():
        split = splits.get(place.split)
        if split is None or not place.row < len(split) or _digest(split, place.row) != told:
            raise ValueError(
                f"{path} is of other data: {place} is not the image that was screened; screen again"
            )
    kept = {name: _without(name, split, dropped) for name, split in splits.items()}
    for name, split in kept.items():
        if not len(split):
            raise ValueError(f"{path} leaves nothing of the {name} split")
    mean, std = sampled_moments(kept["train"])
    train, validation, test = kept.values()
    return dataclasses.replace(
        source, train=train, validation=validation, test=test, mean=mean, std=std
    )


def _without(name: str, split: Split, dropped: dict[Place, str | None]) -> Split:
    keep = [row for row in range(len(split)) if Place(name, row) not in dropped]
    if len(keep) == len(split):
        return split
    if isinstance(split, Arrays):
        return Arrays(**split.take(np.array(keep, int)))
    return Pool({name: split}, [Place(name, row) for row in keep])
