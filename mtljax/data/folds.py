"""Folds of a cross-validation: each example of a source is a test example of one fold.

The folds depend on the examples of the source only, not on seeds or tasks, so that all runs of a
comparison have the same.
"""

import csv
import dataclasses
import hashlib
import io
import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Int

from mtljax.data.base import Batch, Source, Split, membership_of
from mtljax.data.droplist import with_splits
from mtljax.data.notes import NoteCounter
from mtljax.data.pipeline import read_batch
from mtljax.data.pool import ExampleId, Pool, pool_of
from mtljax.data.splitting import note_rare_strata, partition


class Fold(NamedTuple):
    """Fold of a cross-validation."""

    number: int
    """1 ... total."""
    total: int
    """Number of folds."""

    def __str__(self) -> str:
        return f"{self.number}/{self.total}"


def parse_fold(text: str) -> Fold:
    """Returns the fold of a text such as 2/5.

    Raises:
      ValueError: The text is not NUMBER/TOTAL with 1 <= NUMBER <= TOTAL and TOTAL >= 2.
    """
    match = re.fullmatch(r"(\d+)/(\d+)", text.strip())
    fold = Fold(*map(int, match.groups())) if match else Fold(0, 0)
    if not 1 <= fold.number <= fold.total or fold.total < 2:
        raise ValueError(f"data.fold must be NUMBER/TOTAL, such as 2/5, not {text!r}")
    return fold


class PoolBatches(Pool):
    """`Pool` of splits with `take`."""

    def take(self, rows: Int[np.ndarray, " n"]) -> Batch:
        """Returns the examples at `rows`, in their order, read per split."""
        places = [self.places[int(row)] for row in np.arange(len(self))[rows]]
        batches, positions = [], []
        for name in dict.fromkeys(place.split for place in places):
            position = [i for i, place in enumerate(places) if place.split == name]
            inside = np.array([places[i].row for i in position], int)
            batches.append(read_batch(self.splits[name], inside))
            positions += position
        order = np.argsort(positions)
        return jax.tree.map(lambda *leaves: np.concatenate(leaves)[order], *batches)


def fold_rows(pool: Pool, count: int) -> list[Int[np.ndarray, " n"]]:
    """Returns the rows of each fold of a pool, with undivided groups and with strata in proportion.

    Raises:
      ValueError: The pool has fewer groups, or rows, than needed.
    """
    members = [membership_of(pool, row) for row in range(len(pool))]
    has_groups = any(member.group for member in members)
    units = len({member.group or row for row, member in enumerate(members)})
    least = max(count, 3)  # at least two outside of a fold, for training and validation
    if units < least:
        noun = "groups" if has_groups else "examples"
        raise ValueError(f"{count} folds need at least {least} {noun}, but the data has {units}")
    return partition([str(place) for place in pool.places], members, [1 / count] * count)


def folds_of(source: Source, count: int) -> tuple[Pool, list[Int[np.ndarray, " n"]]]:
    """Returns all examples of a source, and the rows of each fold.

    Raises:
      ValueError: The source has fixed splits, or too few examples or groups.
    """
    if source.fixed_splits:
        raise ValueError(f"the data cannot be divided into folds: {source.fixed_splits}")
    pool = pool_of(source)
    return pool, fold_rows(pool, count)


def fold_table(pool: Pool, folds: Sequence[Int[np.ndarray, " n"]]) -> str:
    """Returns CSV with the original split, row, place (without its folder) and fold of examples."""
    text, fold_of = io.StringIO(), np.zeros(len(pool), int)
    for number, rows in enumerate(folds, 1):
        fold_of[rows] = number
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["split", "row", "place", "fold"])
    for row, (place, fold) in enumerate(zip(pool.places, fold_of.tolist(), strict=True)):
        writer.writerow([*place, pool.place(row).rpartition("/")[2], fold])
    return text.getvalue()


def digest(table: str) -> str:
    """Returns a hash of a table of folds."""
    return hashlib.sha256(table.encode()).hexdigest()[:16]


def require_same_folds(place: str, stored: str, current: str) -> None:
    """Raises ValueError if the data was divided into other folds than before."""
    if stored != current:
        raise ValueError(
            f"{place} has a cross-validation of other examples: the data, or its groups and strata,"
            " have changed, so that the folds differ; choose another --workdir"
        )


def fold_source(source: Source, fold: Fold) -> Source:
    """Returns the source with new splits: test is one fold, the rest are training and validation.

    The examples of all splits take part. The share of validation is that of the source without its
    test split, and the statistics are those of the new training split.

    Raises:
      ValueError: The source has fixed splits, or too few examples or groups.
    """
    pool, folds = folds_of(source, fold.total)
    members, notes = [membership_of(pool, row) for row in range(len(pool))], NoteCounter()
    test = folds[fold.number - 1]
    rest = np.setdiff1d(np.arange(len(pool)), test)
    share = len(source.validation) / (len(source.train) + len(source.validation))
    train, validation = (
        rest[part]
        for part in partition(
            [str(pool.places[row]) for row in rest],
            [members[row] for row in rest],
            (1 - share, share),
            favor_first=True,
        )
    )
    rows = {"train": train, "validation": validation, "test": test}
    for name, part in rows.items():
        if not len(part):
            raise ValueError(f"fold {fold} of {len(pool)} examples leaves the {name} split empty")
    notes.add("converted", f"examples of all splits to those of fold {fold}", count=len(pool))
    note_rare_strata(folds, members, "fold", notes)
    has_take = all(hasattr(split, "take") for split in pool.splits.values())
    pools = {
        name: (PoolBatches if has_take else Pool)(pool.splits, pool.at(part).places)
        for name, part in rows.items()
    }
    table = fold_table(pool, folds)
    return dataclasses.replace(with_splits(source, pools, notes), folds=digest(table))


def moved_places(splits: Mapping[str, Split]) -> dict[ExampleId, ExampleId]:
    """Returns the place in the splits of a fold of each example of the original splits."""
    return {
        old: ExampleId(name, row)
        for name, split in splits.items()
        if isinstance(split, Pool)
        for row, old in enumerate(split.places)
    }
