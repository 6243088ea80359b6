"""Tables with one row per box: columns of a box and its class, and several rows per image."""

from collections.abc import Mapping, Sequence
from typing import Any

from mtljax.data.base import LabelRequest
from mtljax.data.files.encoded import ImageFile
from mtljax.data.notes import NoteCounter
from mtljax.data.rows import Table
from mtljax.data.tables.labels import Labels
from mtljax.tasks import Detection


def merge_boxes(
    table: Table,
    files: Sequence[ImageFile],
    labels: Sequence[Labels],
    requests: Sequence[LabelRequest],
    faults: dict[int, str],
    notes: NoteCounter,
) -> tuple[list[Labels], set[int]]:
    """Gives all rows of an image the boxes of all of them, where columns have the box of a row.

    Args:
      files: Image of each row.
      faults: Receives all rows of an image of which one cannot be used.

    Returns:
      The labels, and the rows whose boxes the first row of their image has now.
    """
    of_boxes = [
        k
        for k, (task, key) in enumerate(requests)
        if isinstance(task, Detection) and "," in key and key not in table.columns
    ]
    rows_of: dict[ImageFile, list[int]] = {}
    for i, file in enumerate(files if of_boxes else ()):
        rows_of.setdefault(file, []).append(i)
    groups = [rows for rows in rows_of.values() if len(rows) > 1]
    merged = list(labels)
    for k in of_boxes:
        values = list(labels[k].values)
        for rows in groups:
            boxes = _merged([(i, values[i]) for i in rows if values[i] is not None], table, notes)
            for i in rows:
                values[i] = boxes
        merged[k] = labels[k]._replace(values=tuple(values))
    for rows in groups:
        fault = next((f"{table.rows[i]}: {faults[i]}" for i in rows if i in faults), None)
        for i in rows if fault else ():
            faults.setdefault(i, f"another box of the image cannot be used: {fault}")
        further, place = len(rows) - 1, str(table.rows[rows[1]])
        notes.add("converted", "rows to further boxes of their images", place, further)
    return merged, {i for rows in groups for i in rows[1:]}


def _merged(rows: Sequence[tuple[int, Any]], table: Table, notes: NoteCounter) -> Any:
    """Returns the boxes of several rows as one label; equal rows are counted and used once."""
    boxes: list[Any] = []
    for i, value in rows:
        if value in boxes:
            notes.add("dropped", "rows that repeat a box of their image", str(table.rows[i]))
        else:
            boxes.append(value)
    if not boxes:
        return None
    if not isinstance(boxes[0], Mapping):
        return [number for value in boxes for number in value]
    return {part: [x for value in boxes for x in value[part]] for part in boxes[0]}
