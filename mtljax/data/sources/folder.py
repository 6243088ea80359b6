"""Source of the user's own data: a folder of images and a table of their labels."""

from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from typing import Any

from mtljax.data.base import LabelRequest, Source, require_labels
from mtljax.data.coco import match_images, read_boxes
from mtljax.data.file_examples import FileExamples, source_of_files
from mtljax.data.images import FILES
from mtljax.data.notes import NoteCounter
from mtljax.data.sources.arguments import find_folder, read_size
from mtljax.data.splitting import members_of_table, require_whole_groups, split_rows
from mtljax.data.tables import Row, find_table, read_table, table_classes
from mtljax.tasks import Task
from mtljax.utils.registry import nearest
from mtljax.utils.text import error_prefix

SPLITS = {
    "training": "train",
    "val": "validation",
    "valid": "validation",
    "dev": "validation",
    "testing": "test",
}
"""Other names of splits in tables."""


def folder(
    path: str,
    *,
    table: str | None = None,
    image: str = "image",
    split: str = "split",
    group: str | None = None,
    stratify: str | None = None,
    size: tuple[int, ...] | None = None,
    channels: int = 3,
    validation: float = 0.1,
    test: float = 0.2,
    seed: int = 0,
    requests: Sequence[LabelRequest],
) -> Source:
    """Folder of images with a table of labels (CSV, JSON lines or Parquet), one row per image.

    A task's label is in the column of the task's name, or in the column, the comma-separated
    columns or the COCO file (`boxes.json`) set in `data.labels`. A cell has a number, a word,
    several numbers, or a file name: PNG masks (classes as gray levels or palette indices), 16-bit
    PNG or npy depth maps, npy normals. An empty cell is a missing label.

    Args:
      path: Folder, relative to the working directory or `$MTLJAX_DATA`.
      table: Name of the table in the folder; may be omitted if there is only one.
      image: Column with the images' file names, relative to the subfolder `images` or the folder.
      split: Column with train, validation or test. Without it, rows are split by a hash of the file
        name, which does not change when rows are added or removed.
      group: Column with the patient, scene or video of an image; all of a group are in one split or
        fold. Rows are then split by a hash of the group.
      stratify: Column with the classes that each split and fold has in proportion. Additional rows
        may then move others to another split.
      size: (height, width) to resize images and labels to; if omitted, all sizes must be equal.
      channels: 3 for color, 1 for gray, or the number of bands of TIFF and npy files.
      validation, test: Share of these rows, without a split column.
      seed: Seed of the split, likewise.
    """
    root = find_folder(path)
    file = find_table(root, table)
    rows = read_table(file)
    if channels < 1:
        raise ValueError(f"source folder: channels must be >= 1, not {channels}")
    images = _images(root, file, rows, image)
    numbers = tuple(row.number for row in rows)
    notes = NoteCounter()
    columns, tasks = [], []
    for request in requests:
        task, column = _labels(root, file, rows, images, request, notes)
        tasks.append(task)
        columns.append(column)
    members = tuple(members_of_table(str(file), rows, group, stratify))
    examples = FileExamples(
        table=file,
        images=images,
        numbers=numbers,
        columns=tuple(columns),
        tasks=tuple(tasks),
        channels=channels,
        size=read_size(size, "folder"),
        members=members,
    )
    if any(split in row.cells for row in rows):
        parts = _split_by_column(file, rows, split)
        require_whole_groups(str(file), parts, members)
    else:
        names = [str(row.cells[image]) for row in rows]
        parts = split_rows(names, members, validation, test, seed, notes)
    for task, column in zip(examples.tasks, examples.columns, strict=True):
        if all(column[i] is None for i in parts["train"]):
            raise ValueError(f"{file}: task {task.name!r} has no label in any training row")
    return source_of_files(examples, parts, notes)


def _split_by_column(file: Path, rows: Sequence[Row], column: str) -> dict[str, list[int]]:
    """Returns the rows of each split as given in a column."""
    parts: dict[str, list[int]] = {"train": [], "validation": [], "test": []}
    for i, row in enumerate(rows):
        cell = row.cells.get(column)
        name = SPLITS.get(str(cell).lower(), str(cell).lower())
        if name not in parts:
            fault = f"{column} is {cell!r}; must be train, validation or test"
            raise ValueError(f"{file} row {row.number}: {fault}")
        parts[name].append(i)
    return parts


def _images(root: Path, file: Path, rows: Sequence[Row], column: str) -> tuple[Path, ...]:
    """Returns the image of each row."""
    columns = _columns(rows)
    if column not in columns:
        fault = f"no column {column!r} with the images' names{nearest(column, columns)}"
        raise ValueError(f"{file} has {fault}; image=COLUMN selects another")
    numbers: dict[Path, int] = {}
    for row in rows:
        place = f"{file} row {row.number}"
        name = row.cells.get(column)
        if not isinstance(name, str):
            raise ValueError(f"{place}: must have the name of an image file, not {name!r}")
        path = _find_file(root, name, "images")
        if path in numbers:
            raise ValueError(f"{place}: {path.name} is in row {numbers[path]} already")
        numbers[path] = row.number
    return tuple(numbers)


def _columns(rows: Sequence[Row]) -> set[str]:
    return {name for row in rows for name in row.cells}


def _find_file(root: Path, name: str, subfolder: str) -> Path:
    """Returns the file named in a cell, in a subfolder or, also if missing, in the folder."""
    inside = root / subfolder / name
    return inside if inside.is_file() else root / name


def _labels(
    root: Path,
    file: Path,
    rows: Sequence[Row],
    images: Sequence[Path],
    request: LabelRequest,
    notes: NoteCounter,
) -> tuple[Task, tuple[Any, ...]]:
    """Returns the task, with the classes of the data, and its raw label of each row."""
    task, key = request
    if key.endswith(".json"):
        task, boxes = read_boxes(root / key, task, notes)
        names = [_relative(root, image) for image in images]
        return task, tuple(match_images(root / key, boxes, names, notes))
    known = _columns(rows)
    columns = [key] if key in known else [name.strip() for name in key.split(",")]
    require_labels(str(file), [LabelRequest(task, name) for name in columns], known, "column")
    column = tuple(_cell(root, file, row, columns) for row in rows)
    mentioned = [dict.fromkeys(columns)] if len(columns) > 1 else column
    classes = table_classes(task, chain.from_iterable(map(task.classes_in, mentioned)))
    with error_prefix(file):
        return (task.with_classes(classes) if classes else task), column


def _relative(root: Path, image: Path) -> str:
    """Returns an image's path in the subfolder `images`, or else in the folder."""
    for folder in (root / "images", root):
        if image.is_relative_to(folder):
            return image.relative_to(folder).as_posix()
    return image.as_posix()


def _cell(root: Path, file: Path, row: Row, columns: Sequence[str]) -> Any:
    """Returns one cell, or the cells of several columns, which must be all empty or all filled."""
    if len(columns) > 1:
        values = [row.cells.get(name) for name in columns]
        empty = [name for name in columns if row.cells.get(name) is None]
        if empty and len(empty) < len(columns):
            fault = f"{empty[0]} is empty, but {columns[0]}, ... are one label"
            raise ValueError(f"{file} row {row.number}: {fault}: fill in all of them or none")
        return None if empty else values
    value = row.cells.get(columns[0])
    if isinstance(value, str) and value.lower().endswith(FILES):
        return _find_file(root, value, columns[0])
    return value
