"""The list of examples that training leaves out, in a file: one JSON object a line."""

import dataclasses
import json
from pathlib import Path

import numpy as np

from mtljax.data.base import Arrays, Source, Split
from mtljax.data.pool import Place, Pool, digest
from mtljax.data.reading import sampled_moments
from mtljax.utils.files import read_text


def image_digest(split: Split, row: int) -> str | None:
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
        if split is None or not place.row < len(split) or image_digest(split, place.row) != told:
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
