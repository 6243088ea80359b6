"""Images that the rows of a table name."""

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from mtljax.data.files.encoded import EncodedImage, ImageFile
from mtljax.data.files.images import FILES
from mtljax.data.notes import NoteCounter
from mtljax.data.rows import Table
from mtljax.data.tables.image_names import FileFinder
from mtljax.utils.registry import nearest
from mtljax.utils.text import count


class Images(NamedTuple):
    """Image of each row."""

    files: tuple[ImageFile, ...]
    """File, or bytes in a table, of each row."""
    names: tuple[str, ...]
    """Text by whose hash rows are assigned to splits."""


def read_images(table: Table, column: str, finder: FileFinder, faults: dict[int, str]) -> Images:
    """Finds the image of each row; `faults` receives the rows without one.

    Raises:
      ValueError: There is no such column, or no row has an image.
    """
    if column not in table.columns:
        fault = f"no column {column!r} with the images' names{nearest(column, table.columns)}"
        has_file = any(name.lower().endswith(FILES) for name in table.columns)
        hint = "row 1 must have the names of the columns" if has_file else ""
        hint = hint or "image=COLUMN selects another"
        raise ValueError(f"{table.path} has {fault}; {hint}")
    if column in table.unusable:
        kind = table.unusable[column]
        raise ValueError(f"{table.path}: column {column!r} has the type {kind}, not image files")
    files: list[ImageFile] = []
    for i, row in enumerate(table.rows):
        cell = row.cells.get(column)
        try:
            files.append(finder.find(cell, row))
        except ValueError as error:
            faults.setdefault(i, str(error))
            files.append(Path(cell) if isinstance(cell, str) and cell.isprintable() else Path())
    if len(faults) == len(table.rows):
        first, others = faults[0], len(faults) - 1
        more = f"; {count(others, 'other row')} cannot be used either" if others else ""
        raise ValueError(f"{table.rows[0]}: {first}{more}")
    return Images(tuple(files), _names(table, column, files))


def _names(table: Table, column: str, files: Sequence[ImageFile]) -> tuple[str, ...]:
    encoded = [file.name for file in files if isinstance(file, EncodedImage)]
    if len(set(encoded)) < len(encoded):  # no names, or not unique ones: the order of the rows
        return tuple(f"{row.file.name} {row.number}" for row in table.rows)
    cells = (row.cells.get(column) for row in table.rows)
    pairs = zip(cells, files, strict=True)
    return tuple(file.name if isinstance(file, EncodedImage) else str(cell) for cell, file in pairs)


def without_repeated(
    table: Table,
    files: Sequence[ImageFile],
    values: Sequence[Sequence[Any]],
    faults: dict[int, str],
    notes: NoteCounter,
    merged: Collection[int] = (),
) -> list[int]:
    """Returns the rows without those that repeat another one, which are counted.

    Args:
      files: Image of each row.
      values: For each row, its labels and its split.
      faults: Receives all rows of an image whose rows differ.
      merged: Rows whose boxes were added to another row, which repeat it without a note.
    """
    rows_of: dict[ImageFile, list[int]] = {}
    for i, file in enumerate(files):
        if i not in faults:
            rows_of.setdefault(file, []).append(i)
    repeated = set()
    for file, rows in rows_of.items():
        for i in rows[1:]:
            first = table.rows[rows[0]]
            if values[i] == values[rows[0]]:
                repeated.add(i)
                what = "rows that repeat the image, the labels and the split of another row"
                notes.add("dropped", what, str(table.rows[i]), int(i not in merged))
                continue
            number = first.number if first.file == table.rows[i].file else first
            faults[i] = (
                f"{file.name} is in row {number} already, with other labels or another split; "
                "must be in one row"
            )
            other = table.rows[i].number if first.file == table.rows[i].file else table.rows[i]
            faults.setdefault(
                rows[0], f"{file.name} is in row {other}, too, with other labels or another split"
            )
    return [i for i in range(len(files)) if i not in repeated]


def note_unused_images(
    finder: FileFinder,
    files: Sequence[ImageFile],
    labels: Sequence[Sequence[Any]],
    notes: NoteCounter,
) -> None:
    """Notes the image files next to those of the rows that no row names."""
    images = [file for file in files if isinstance(file, Path)]
    used = {value for column in labels for value in column if isinstance(value, Path)}
    unused = [path for path in finder.unmatched(images) if path not in used]
    if unused:
        what = "image files without a row in the table"
        notes.add("unmatched", what, str(unused[0]), len(unused))
