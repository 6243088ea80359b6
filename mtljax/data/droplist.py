"""List of examples and labels that training leaves out: a JSON lines file."""

import dataclasses
import json
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from mtljax.data.base import (
    Arrays,
    Batch,
    ChangedSplit,
    Example,
    Source,
    Split,
)
from mtljax.data.lazy import source_of_splits
from mtljax.data.notes import Kind, NoteCounter
from mtljax.data.pool import ExampleId, Pool, image_digest
from mtljax.utils.bounded_reading import read_text


class DropEntry(NamedTuple):
    """Example, or label of an example, that training leaves out."""

    place: ExampleId
    """Split and row of the example."""
    task: str | None
    """Task whose label is left out; None: the entire example."""
    digest: str | None
    """Hash of the image; None if it cannot be read."""


def example_digest(split: Split, row: int) -> str | None:
    """Returns the hash of an example's image, or None if it cannot be read."""
    try:
        return image_digest(np.asarray(split[row]["image"]))
    except Exception:  # a source's reader may raise anything
        return None


def read_drop_list(path: Path) -> list[DropEntry]:
    """Reads a list written by `screen --drop`; entries without `task` are entire examples."""
    try:
        lines = read_text(path).splitlines()
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror}") from None
    entries = []
    for number, line in enumerate(lines, 1):
        try:
            entry = json.loads(line)
            place = ExampleId(str(entry["split"]), int(entry["row"]))
            entries.append(DropEntry(place, entry.get("task"), entry["image"]))
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            raise ValueError(f"{path} line {number} was not written by `screen --drop`") from None
    return entries


def drop_examples(
    source: Source,
    path: Path,
    tasks: Collection[str],
    moved: Mapping[ExampleId, ExampleId] | None = None,
) -> Source:
    """Returns the source without the listed examples, and with the listed labels missing.

    The statistics are those of the remaining examples; the notes count what was left out, and the
    listed labels of tasks that are not in `tasks`. `moved` has the place in `source` of the listed
    places, if it differs.
    """
    entries, splits = read_drop_list(path), source.splits()
    if moved is not None:
        entries = [e._replace(place=moved.get(e.place, ExampleId("", -1))) for e in entries]
    _require_same_images(path, entries, splits)
    rows = {entry.place for entry in entries if entry.task is None}
    labels = {(e.task, e.place) for e in entries if e.task is not None and e.place not in rows}
    remaining = {}
    for name, split in splits.items():
        missing = {
            task: frozenset(
                place.row for key, place in labels if (key, place.split) == (task, name)
            )
            for task in tasks
        }
        remaining[name] = without_rows(name, _without_labels(split, missing), rows)
        if not len(remaining[name]):
            raise ValueError(f"{path} leaves the {name} split empty")
    notes = NoteCounter()
    for place in sorted(rows):
        notes.add("dropped", f"examples that are listed in {path.name}", str(place))
    for task, place in sorted(labels):
        kind: Kind = "dropped" if task in tasks else "unmatched"
        notes.add(kind, f"labels of task {task!r} that are listed in {path.name}", str(place))
    return with_splits(source, remaining, notes)


def with_splits(source: Source, splits: Mapping[str, Split], notes: NoteCounter) -> Source:
    """Returns the source with other splits, their statistics and further notes."""
    new = source_of_splits(splits, source.low, source.high)
    return dataclasses.replace(
        source,
        train=new.train,
        validation=new.validation,
        test=new.test,
        mean=new.mean,
        std=new.std,
        notes=(*source.notes, *notes.notes()),
    )


def _require_same_images(
    path: Path, entries: Sequence[DropEntry], splits: Mapping[str, Split]
) -> None:
    """Raises ValueError unless each listed image is the one that was screened.

    Images that could not be read then are not compared.
    """
    for place, digest in {entry.place: entry.digest for entry in entries}.items():
        split = splits.get(place.split)
        known = split is not None and 0 <= place.row < len(split)
        if split is None or not known or digest not in (None, example_digest(split, place.row)):
            what = f"{place} is not the image that was screened"
            raise ValueError(f"{path} belongs to other data: {what}; screen again")


def masked_present(
    present: Mapping[str, np.ndarray],
    missing: Mapping[str, frozenset[int]],
    rows: int | np.ndarray,
) -> dict[str, np.ndarray]:
    """Returns `present` of the examples at `rows`, False for the rows in `missing`."""
    return {
        task: mask & ~np.isin(rows, list(missing.get(task, ()))) for task, mask in present.items()
    }


@dataclasses.dataclass(frozen=True)
class MaskedLabels(ChangedSplit):
    """Split in which some labels are marked missing."""

    missing: Mapping[str, frozenset[int]]
    """Task -> rows without its label."""

    def __getitem__(self, index: int) -> Example:
        example = self.split[index]
        return {**example, "present": masked_present(example["present"], self.missing, index)}


class MaskedLabelBatches(MaskedLabels):
    """`MaskedLabels` of a split with `take`."""

    def take(self, rows: np.ndarray) -> Batch:
        """Returns the examples at `rows`, in their order."""
        batch = self.split.take(rows)  # type: ignore[attr-defined]  # optional method
        return {**batch, "present": masked_present(batch["present"], self.missing, rows)}


def _without_labels(split: Split, missing: Mapping[str, frozenset[int]]) -> Split:
    if not any(missing.values()):
        return split
    if isinstance(split, Arrays):
        present = masked_present(split.present, missing, np.arange(len(split)))
        return dataclasses.replace(split, present=present)
    return (MaskedLabelBatches if hasattr(split, "take") else MaskedLabels)(split, missing)


def without_rows(name: str, split: Split, dropped: Collection[ExampleId]) -> Split:
    """Returns the split `name` without the listed examples."""
    places = [place for row in range(len(split)) if (place := ExampleId(name, row)) not in dropped]
    if len(places) == len(split):
        return split
    if isinstance(split, Arrays):
        origin = None if split.origin is None else Pool({name: split.origin}, places)
        rows = np.array([place.row for place in places], int)
        members = tuple(split.members[row] for row in rows) if split.members else ()
        return Arrays(**split.take(rows), origin=origin, members=members)
    return Pool({name: split}, places)
