"""Your own data: a folder of images, and a table of their labels."""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mtljax.data.base import Source, Wanted
from mtljax.data.coco import read_boxes
from mtljax.data.reading import Examples, sampled_moments
from mtljax.data.rows import FileRows
from mtljax.data.sources.paths import find_folder
from mtljax.data.sources.size import read_size
from mtljax.data.tables import Row, find_table, read_table
from mtljax.utils.registry import nearest

FILES = (".png", ".npy", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".gif")
"""A cell that ends so names a file."""
SPLITS = {
    "train": "train",
    "validation": "validation",
    "val": "validation",
    "valid": "validation",
    "dev": "validation",
    "test": "test",
}


def folder(
    path: str,
    table: str | None = None,
    image: str = "image",
    split: str = "split",
    size: tuple[int, ...] | None = None,
    channels: int = 3,
    validation: float = 0.1,
    test: float = 0.2,
    seed: int = 0,
    *,
    wanted: Sequence[Wanted],
) -> Source:
    """A folder with `images/` and a table of labels (CSV, JSON lines or Parquet), a row per image.

    A task's label is in the column of its name, or where `data.labels` says: another column;
    several, with commas between them; or a COCO file (`boxes.json`). A cell holds a number, a word,
    several numbers, or the name of a file: PNG masks (classes as grey levels or indices of a
    palette), 16-bit PNG or npy depths, npy normals. An empty cell is a missing label.

    Args:
      path: The folder, here or in `$MTLJAX_DATA`.
      table: Name of the table in it; the only one there is, if left out.
      image: Column with the images' file names, in `images/` or in the folder itself.
      split: Column that says train, validation or test. Without it, a hash of the file name
        decides, so that a row stays where it is when others come or go.
      size: (height, width) that images and labels are brought to; all images must have one size if
        left out.
      channels: 3, or 1 for grey.
      validation, test: Shares, where there is no split column.
      seed: Of the split.
      wanted: What the tasks want.
    """
    where = find_folder(path)
    file = find_table(where, table)
    rows = read_table(file)
    if channels not in (1, 3):
        raise ValueError(f"source folder: channels must be 1 or 3, not {channels}")
    brought_to = read_size(size, "folder")
    images = _images(where, file, rows, image)
    columns = [_column(where, file, rows, item) for item in wanted]
    tasks = tuple(task for task, _ in wanted)
    whole = FileRows(
        table=file,
        images=tuple(images),
        numbers=tuple(row.number for row in rows),
        columns=tuple(columns),
        tasks=tasks,
        channels=channels,
        size=brought_to,
    )
    whole.check()
    if any(split in row.cells for row in rows):
        parts = _said(file, rows, split)
    else:
        names = [str(row.cells[image]) for row in rows]
        parts = by_hash(names, validation, test, seed)
    for task, column in zip(tasks, columns, strict=True):
        if not any(column[i] is not None for i in parts["train"]):
            raise ValueError(f"{file}: task {task.name!r} has no label in any training row")
    return source_of_rows(whole, parts)


def source_of_rows(whole: FileRows, parts: dict[str, list[int]]) -> Source:
    """A source of files, split.

    Raises:
      ValueError: A split is empty, or an image that the statistics are taken of cannot be read.
    """
    for name, index in parts.items():
        if not index:
            raise ValueError(
                f"{whole.table}: none of {len(whole)} rows is in the {name} split; name the splits "
                "in a column, or give other shares (validation=..., test=...)"
            )
    made = {
        name: Examples(whole.at(index), whole.tasks, whole.size) for name, index in parts.items()
    }
    mean, std = sampled_moments(made["train"])
    return Source(**made, mean=mean, std=std, low=0.0, high=255.0)


def by_hash(
    names: Sequence[str], validation: float, test: float, seed: int
) -> dict[str, list[int]]:
    """Rows of each split, by a hash of each row's name alone.

    Raises:
      ValueError: Shares that leave nothing to train on.
    """
    if not (validation > 0 and test > 0 and validation + test < 1):
        raise ValueError(
            f"validation={validation} and test={test} must be shares > 0 that leave something to "
            "train on"
        )
    parts: dict[str, list[int]] = {"train": [], "validation": [], "test": []}
    for i, name in enumerate(names):
        digest = hashlib.sha256(f"{seed}/{name}".encode()).digest()
        share = int.from_bytes(digest[:8], "big") / 2**64
        held_out = "validation" if share < test + validation else "train"
        parts["test" if share < test else held_out].append(i)
    return parts


def _said(file: Path, rows: Sequence[Row], split: str) -> dict[str, list[int]]:
    """Rows of each split, as a column says."""
    parts: dict[str, list[int]] = {"train": [], "validation": [], "test": []}
    for i, row in enumerate(rows):
        said = str(row.cells.get(split)).lower()
        if said not in SPLITS:
            raise ValueError(
                f"{file} row {row.number}: {split} is {row.cells.get(split)!r}; must be train, "
                "validation or test"
            )
        parts[SPLITS[said]].append(i)
    return parts


def _images(folder: Path, file: Path, rows: Sequence[Row], column: str) -> list[Path]:
    """The image of each row."""
    known = {name for row in rows for name in row.cells}
    if column not in known:
        raise ValueError(
            f"{file} has no column {column!r} with the images' names{nearest(column, known)}; "
            "image=COLUMN names another"
        )
    found: list[Path] = []
    rows_of: dict[Path, int] = {}
    for row in rows:
        path = _file(folder, f"{file} row {row.number}", row.cells.get(column), "images")
        if path in rows_of:
            raise ValueError(
                f"{file} row {row.number}: {path.name} is in row {rows_of[path]} already"
            )
        rows_of[path] = row.number
        found.append(path)
    return found


def _file(folder: Path, place: str, name: Any, usual: str) -> Path:
    """A file that a cell names, in the folder or in the one where such files usually are."""
    if not isinstance(name, str):
        raise ValueError(f"{place}: the name of an image is missing, or no name: {name!r}")
    for path in (folder / usual / name, folder / name):
        if path.is_file():
            return path
    raise ValueError(f"{place}: there is no file {name} in {folder / usual} or {folder}")


def _column(folder: Path, file: Path, rows: Sequence[Row], item: Wanted) -> tuple[Any, ...]:
    """A task's raw label of each row."""
    task, key = item
    if key.endswith(".json"):
        boxes = read_boxes(folder / key, getattr(task, "class_names", ()))
        column = "image"
        names = [Path(str(row.cells.get(column))).name for row in rows]
        by_name = {Path(name).name: value for name, value in boxes.items()}
        return tuple(by_name.get(name) for name in names)
    known = {name for row in rows for name in row.cells}
    columns = [key] if key in known else [name.strip() for name in key.split(",")]
    for name in columns:
        if name not in known:
            raise ValueError(
                f"{file} has no column {name!r} for task {task.name!r}{nearest(name, known)}"
            )
    return tuple(_cell(folder, file, row, columns) for row in rows)


def _cell(folder: Path, file: Path, row: Row, columns: Sequence[str]) -> Any:
    """One cell, or several together, of which all or none must be there."""
    if len(columns) > 1:
        values = [row.cells.get(name) for name in columns]
        missing = [name for name, value in zip(columns, values, strict=True) if value is None]
        if missing and len(missing) < len(columns):
            raise ValueError(
                f"{file} row {row.number}: {missing[0]} is empty, but {columns[0]}, ... are one "
                "label: fill in all of them or none"
            )
        return None if missing else values
    value = row.cells.get(columns[0])
    if isinstance(value, str) and value.lower().endswith(FILES):
        return _file(folder, f"{file} row {row.number}", value, columns[0])
    return value
