"""Raw labels in the columns of a table."""

import re
from collections.abc import Iterable, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

from mtljax.data.base import LabelRequest, require_labels
from mtljax.data.class_names import note_similar_classes
from mtljax.data.files.encoded import EncodedImage
from mtljax.data.files.images import FILES
from mtljax.data.notes import NoteCounter
from mtljax.data.rows import Table
from mtljax.data.tables.cells import MissingMarkers, note_sentinels, with_decimal_points
from mtljax.data.tables.image_names import FileFinder
from mtljax.tasks import Classification, Detection, Keypoints, MultiLabel, Regression, Task
from mtljax.tasks.dense import PixelTask
from mtljax.tasks.parsing import class_text
from mtljax.utils.text import error_prefix, shortened

FRACTION = re.compile(r"[-+]?[0-9]*[.,][0-9]+(e[-+]?[0-9]+)?", re.ASCII | re.IGNORECASE)
"""Number that is not an integer."""


NO_MAPS = (Classification, Detection, Keypoints, MultiLabel, Regression)
"""Tasks whose labels are no image files."""


class Labels(NamedTuple):
    """Raw labels of a task."""

    task: Task
    """The task, with the classes of the data."""
    values: tuple[Any, ...]
    """Argument of `Task.parse` for each row, a file, or None for a missing label."""
    faults: dict[int, str]
    """Row -> reason for which its label cannot be used."""


def read_labels(
    table: Table,
    request: LabelRequest,
    root: Path,
    markers: MissingMarkers,
    notes: NoteCounter,
) -> Labels:
    """Reads the column, or the comma-separated columns, of a request.

    Args:
      root: Folder of label files, which may also be in a subfolder with the name of the column.

    Raises:
      ValueError: There is no such column, or the column cannot be read as labels.
    """
    task, key = request
    columns = [key] if key in table.columns else [name.strip() for name in key.split(",")]
    wanted = [LabelRequest(task, name) for name in columns]
    require_labels(str(table.path), wanted, table.columns, "column")
    for name in columns:
        if name in table.unusable:
            raise ValueError(
                f"{table.path}: column {name!r} of task {task.name!r} has the type "
                f"{table.unusable[name]}; must be numbers, text, or image files"
            )
    cells = [_read_column(table, name, task, markers, notes) for name in columns]
    is_image = lambda cell: isinstance(cell, EncodedImage)
    if isinstance(task, NO_MAPS) and any(map(is_image, chain.from_iterable(cells))):
        raise ValueError(
            f"{table.path}: column {key!r} has image files, which are no labels of task "
            f"{task.name!r} ({type(task).__name__})"
        )
    faults: dict[int, str] = {}
    are_boxes = isinstance(task, Detection) and len(columns) == 5
    if len(columns) > 1:
        with error_prefix(f"{table.path}: task {task.name!r}"):
            task.check_columns(columns)
        values = _joined(table, columns, cells, task, faults)
        if are_boxes:
            values = [v if v is None else {"boxes": v[:4], "classes": v[4:]} for v in values]
    else:
        finder = FileFinder(root, columns[0], notes)
        values = _with_files(table, cells[0], task, finder, faults)
    classes = table.class_names.get(columns[0], ()) if len(columns) == 1 else ()
    with error_prefix(table.path):
        if not classes:
            is_column = len(columns) == 1 or are_boxes
            mentioned = values if is_column else [dict.fromkeys(columns)]
            mentioned = [value for value in mentioned if value is not None]
            classes = table_classes(task, chain.from_iterable(map(task.classes_in, mentioned)))
        task = task.with_classes(classes) if classes else task
    note_similar_classes(task, classes, notes)
    _note_indices(table, values, task, notes)
    return Labels(task, tuple(values), faults)


def _note_indices(table: Table, values: Sequence[Any], task: Task, notes: NoteCounter) -> None:
    """Counts cells that are indices of classes with names, whose order may be another one."""
    names = getattr(task, "class_names", ())
    if not isinstance(task, Classification) or not names:
        return
    what = f"indices to classes of task {task.name!r}, where 0 is {shortened(names[0])!r}"
    for row, value in zip(table.rows, values, strict=True):
        text = None if value is None else class_text(value)
        if text is not None and text.isdecimal() and text not in names:
            notes.add("converted", what, str(row))


def _read_column(
    table: Table, column: str, task: Task, markers: MissingMarkers, notes: NoteCounter
) -> list[Any]:
    """Returns the cells of a column, without missing markers and with decimal points."""
    classes = getattr(task, "class_names", ()) or table.class_names.get(column, ())
    classes = (*classes, *getattr(task, "no_class", ()))
    cells = [markers.value(row.cells.get(column), task, classes, row) for row in table.rows]
    values = with_decimal_points(cells, task, table, notes)
    note_sentinels(table.rows, values, task, notes)
    return values


def _joined(
    table: Table,
    columns: Sequence[str],
    cells: Sequence[Sequence[Any]],
    task: Task,
    faults: dict[int, str],
) -> list[Any]:
    """Returns the cells of several columns as one label, None if all are empty."""
    values: list[Any] = []
    for i, parts in enumerate(zip(*cells, strict=True)):
        empty = [name for name, part in zip(columns, parts, strict=True) if part is None]
        values.append(None if len(empty) == len(columns) else list(parts))
        if empty and values[-1] is not None and not task.accepts_empty_columns:
            fault = f"{empty[0]} is empty, but {columns[0]}, ... are one label"
            faults[i] = f"{fault}: fill in all of them or none"
    return values


def _with_files(
    table: Table, cells: Iterable[Any], task: Task, finder: FileFinder, faults: dict[int, str]
) -> list[Any]:
    """Returns cells, with files for the names of files."""
    values = []
    for i, (row, value) in enumerate(zip(table.rows, cells, strict=True)):
        is_name = isinstance(value, str) and value.lower().endswith(FILES)
        if is_name or (isinstance(task, PixelTask) and isinstance(value, (str, int, float))):
            try:
                value = finder.find(value, row)
            except ValueError as error:
                faults[i] = f"task {task.name!r}: {error}"
        values.append(value)
    return values


def table_classes(task: Task, mentioned: Iterable[str]) -> tuple[str, ...]:
    """Returns the classes that the cells of a task mention, in natural order.

    None if the task has its own, if all are indices below its number of classes, or if one is a
    fraction, which is no class.
    """
    texts = set(mentioned)
    count = getattr(task, "num_classes", 0)
    are_indices = all(text.isdecimal() and int(text) < count for text in texts)
    has_fraction = any(FRACTION.fullmatch(text) for text in texts)
    if getattr(task, "class_names", ()) or are_indices or has_fraction:
        return ()
    negative = [text for text in texts if re.fullmatch(r"-\d+", text)]
    if negative and all(re.fullmatch(r"-?\d+", text) for text in texts):
        raise ValueError(
            f"task {task.name!r}: {min(negative)} may be a class or a missing label; set "
            f"missing={min(negative)} of the source, or class_names of the task"
        )
    return tuple(sorted(texts, key=natural_key))


def natural_key(text: str) -> tuple[tuple[int, int, str], ...]:
    """Returns a sort key by which 9 precedes 10, and img9 precedes img10."""
    parts = re.findall(r"[0-9]+|[^0-9]+", text)
    return tuple((0, int(part), part) if part.isdecimal() else (1, 0, part) for part in parts)
