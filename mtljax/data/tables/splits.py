"""Splits that a table declares in a column."""

import collections
import re
from collections.abc import Collection, Mapping
from pathlib import Path

from mtljax.data.layouts import SPLITS
from mtljax.data.notes import NoteCounter
from mtljax.data.rows import Table
from mtljax.utils.registry import nearest
from mtljax.utils.text import count, shortened

FLAG = re.compile(r"(is|in)?[ _-]?(train|training|val|valid|validation|test|testing)[ _-]?(set)?")
"""Name of a column that states for each row whether it is in one split."""
BOOLEANS = {"0", "1", "0.0", "1.0", "true", "false", "yes", "no"}
"""Values of a column that marks the examples of a split, in lower case."""


def read_splits(
    table: Table, column: str, files: Mapping[Path, str], faults: dict[int, str]
) -> list[str]:
    """Returns the split of each row, "" for all rows if the table does not declare splits.

    Args:
      column: Name of the column with the splits.
      files: File -> the split in its name, which counts if there is no such column.
      faults: Receives the rows without a valid split.

    Raises:
      ValueError: No row has a valid split.
    """
    if column not in table.columns:
        if column != "split":
            hint = nearest(column, table.columns)
            raise ValueError(f"{table.path} has no column {column!r} with the splits{hint}")
        return [files.get(row.file, "") for row in table.rows]
    cells = [row.cells.get(column) for row in table.rows]
    texts = ["" if cell is None else str(cell) for cell in cells]
    splits = [SPLITS.get(text.lower(), "") for text in texts]
    if not any(splits):
        values = collections.Counter(texts).most_common(4)
        listed = ", ".join(f"{shortened(v, 30)!r} ({count(n, 'row')})" for v, n in values)
        raise ValueError(
            f"{table.path}: column {column!r} has the values {listed}; must be train, validation "
            "or test"
        )
    for i, (text, name) in enumerate(zip(texts, splits, strict=True)):
        if not name:
            value = repr(shortened(text)) if text else "empty"
            faults.setdefault(i, f"{column} is {value}; must be train, validation or test")
    return splits


def note_unused_splits(table: Table, used: Collection[str], notes: NoteCounter) -> None:
    """Notes columns that seem to have splits, but are not used."""
    for column in table.columns:
        if column in used:
            continue
        cells = (row.cells.get(column) for row in table.rows)
        texts = {str(cell).lower() for cell in cells if cell is not None}
        if len(texts) > 1 and texts <= SPLITS.keys():
            notes.add(
                "warning",
                f"column {column!r} has names of splits, but is not used; split={column} uses it",
            )
        elif FLAG.fullmatch(column.lower()) and len(texts) > 1 and texts <= BOOLEANS:
            notes.add(
                "warning",
                f"column {column!r} is not used: splits are read from one column with the words "
                "train, validation and test",
            )
