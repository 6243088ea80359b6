"""List of examples that training leaves out: a JSON lines file."""

import dataclasses
import json
from collections.abc import Collection
from pathlib import Path

import numpy as np

from mtljax.data.base import Arrays, Source, Split
from mtljax.data.lazy import source_of_splits
from mtljax.data.pool import ExampleId, Pool, image_digest
from mtljax.utils.bounded_reading import read_text


def example_digest(split: Split, row: int) -> str | None:
    """Returns the hash of an example's image, or None if it cannot be read."""
    try:
        return image_digest(np.asarray(split[row]["image"]))
    except Exception:  # a source's reader may raise anything
        return None


def read_drop_list(path: Path) -> dict[ExampleId, str | None]:
    """Reads the image hash of each example in a list written by `screen --drop`."""
    try:
        lines = read_text(path).splitlines()
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror}") from None
    digests: dict[ExampleId, str | None] = {}
    for number, line in enumerate(lines, 1):
        try:
            entry = json.loads(line)
            digests[ExampleId(str(entry["split"]), int(entry["row"]))] = entry["image"]
        except (ValueError, KeyError, TypeError, RecursionError):
            raise ValueError(f"{path} line {number} was not written by `screen --drop`") from None
    return digests


def drop_examples(source: Source, path: Path) -> Source:
    """Returns the source without the listed examples, with the statistics of the remaining ones."""
    dropped, splits = read_drop_list(path), source.splits()
    for place, digest in dropped.items():
        split = splits.get(place.split)
        if split is None or place.row >= len(split) or example_digest(split, place.row) != digest:
            what = f"{place} is not the image that was screened"
            raise ValueError(f"{path} belongs to other data: {what}; screen again")
    remaining = {name: _remaining(name, split, dropped) for name, split in splits.items()}
    for name, split in remaining.items():
        if not len(split):
            raise ValueError(f"{path} leaves the {name} split empty")
    result = source_of_splits(remaining, source.low, source.high)
    return dataclasses.replace(result, notes=source.notes)


def _remaining(name: str, split: Split, dropped: Collection[ExampleId]) -> Split:
    rows = [row for row in range(len(split)) if ExampleId(name, row) not in dropped]
    if len(rows) == len(split):
        return split
    if isinstance(split, Arrays):
        return Arrays(**split.take(np.array(rows, int)))
    return Pool({name: split}, [ExampleId(name, row) for row in rows])
