"""Labels of arrays in memory, without what their images cannot have; see `Task.clean`."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from mtljax.data.base import Arrays, Source, Split, map_splits
from mtljax.data.notes import NoteCounter
from mtljax.tasks import Task


def clean_arrays(source: Source, tasks: Sequence[Task]) -> Source:
    """Returns the source with clean labels in its arrays that were not read from files.

    Raises:
      ValueError: As `Task.clean`; the message names the row.
    """
    has_clean = lambda task: type(task).clean is not Task.clean and task.cleans_by_size
    cleaned = [task for task in tasks if has_clean(task)]
    notes = NoteCounter()

    def clean(split: Split) -> Split:
        if not isinstance(split, Arrays) or split.origin is not None or not len(split):
            return split
        labels, present = dict(split.labels), dict(split.present)
        for task in cleaned:
            name = task.name
            labels[name], present[name] = _clean(task, split, labels[name], present[name], notes)
        return dataclasses.replace(split, labels=labels, present=present)

    source = map_splits(source, clean) if cleaned else source
    return dataclasses.replace(source, notes=(*source.notes, *notes.notes()))


def _clean(
    task: Task, split: Arrays, labels: Any, present: np.ndarray, notes: NoteCounter
) -> tuple[Any, np.ndarray]:
    """Returns the labels of one task and the mask of labeled examples; copies if they change."""
    size, is_copy = split.image.shape[1:3], False
    example = jax.tree.map(lambda x: x[0], labels)
    if not _is_alike(example, task.placeholder(size)):
        return labels, present  # `Task.check` describes the problem
    for row in np.flatnonzero(present):
        try:
            label, changed = task.clean(jax.tree.map(lambda x, row=row: x[row], labels), size)
        except ValueError as error:
            raise ValueError(f"task {task.name!r}: label of example {row}: {error}") from None
        if changed and not is_copy:
            labels, present, is_copy = jax.tree.map(np.copy, labels), present.copy(), True
        for (kind, what), count in changed.items():
            notes.add(kind, f"{what} of task {task.name!r}", f"example {row}", count)
        if label is None:
            present[row] = False
        elif changed:
            for leaf, value in zip(*map(jax.tree.leaves, (labels, label)), strict=True):
                leaf[row] = value
    return labels, present


def _is_alike(a: Any, b: Any) -> bool:
    """Returns True if two labels have the same parts, and their rows the same shapes."""
    shapes = lambda label: [np.shape(x)[1:] for x in jax.tree.leaves(label)]
    same_parts = str(jax.tree.structure(a)) == str(jax.tree.structure(b))
    return same_parts and shapes(a) == shapes(b)
