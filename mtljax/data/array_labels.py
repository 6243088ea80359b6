"""Labels of arrays in memory in the forms that other programs use: text, None, and [N, 1]."""

import dataclasses
from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Any

import jax
import numpy as np

from mtljax.data.base import Arrays, Source, map_splits
from mtljax.data.class_names import note_similar_classes
from mtljax.data.notes import NoteCounter
from mtljax.data.resolve import complete
from mtljax.data.tables.labels import table_classes
from mtljax.tasks import Task
from mtljax.utils.text import normalized

TEXT = "U"
"""Kind of a NumPy type of text."""


def plain_labels(name: str, label: Any, notes: NoteCounter) -> tuple[Any, np.ndarray]:
    """Returns labels as arrays of numbers or text, and [N], False where an element is None.

    Empty text, NaN between text or Python objects, and masked elements are missing as well.

    Raises:
      ValueError: The labels are neither numbers nor text.
    """
    if isinstance(label, Mapping) or hasattr(label, "_fields"):
        tree = jax.tree.map(np.asarray, label)
        return tree, np.ones(len(jax.tree.leaves(tree)[0]), bool)
    place = f"labels {name!r}"
    try:
        array: Any = np.ma.asarray(label) if np.ma.isMaskedArray(label) else np.asarray(label)
    except ValueError:
        raise ValueError(f"{place} have different lengths; must be one array [N, ...]") from None
    if not array.ndim:
        raise ValueError(f"{place} are a single value; must be an array [N, ...]")
    missing: Any = np.ma.getmaskarray(array).reshape(len(array), -1).any(1)
    array = np.asarray(array)
    if array.dtype.kind == "O":
        missing |= np.array([x is None or (np.isscalar(x) and x != x) for x in array], bool)
        known = [x for x, is_missing in zip(array, missing, strict=True) if not is_missing]
        values = iter(known)
        filled = [known[0] if gone else next(values) for gone in missing] if known else [0.0]
        try:
            array = np.array(filled if known else filled * len(array))
        except ValueError:
            raise ValueError(f"{place} have different shapes; must be one array") from None
    if array.dtype.kind == "S":
        try:
            array = np.char.decode(array, "utf-8")
        except UnicodeDecodeError:
            raise ValueError(f"{place} are bytes that are not in UTF-8") from None
    if array.dtype.kind == TEXT and array.ndim == 1:
        missing |= np.char.strip(array) == ""
    if array.dtype.kind not in "buif" + TEXT:
        raise ValueError(f"{place} have the type {array.dtype}; must be numbers or text")
    if missing.any():
        first = int(missing.argmax())
        notes.add("missing", f"labels {name!r}: None", f"example {first}", int(missing.sum()))
    return array, ~missing


def parse_arrays(source: Source, tasks: Sequence[Task]) -> Source:
    """Returns the source with labels of text parsed, and with [N, ...] for labels [N, ..., 1].

    Raises:
      ValueError: Text is no label of its task; the message names the example.
    """
    splits = [s for s in source.splits().values() if isinstance(s, Arrays) and s.origin is None]
    if not splits:
        return source
    known = {task.name: task for task in source.tasks}
    notes = NoteCounter()
    for task in tasks:
        labels = [split.labels[task.name] for split in splits]
        if all(getattr(label, "dtype", np.dtype(int)).kind != TEXT for label in labels):
            continue
        task = complete(task, vars(known.get(task.name, task)))
        values = chain.from_iterable(map(_texts, splits, [task.name] * len(splits)))
        classes = table_classes(task, chain.from_iterable(map(task.classes_in, values)))
        note_similar_classes(task, classes, notes)
        known[task.name] = task.with_classes(classes) if classes else task

    def parse(split: Any) -> Any:
        if not any(split is other for other in splits):
            return split
        labels = {task.name: _parsed(known.get(task.name, task), split) for task in tasks}
        return dataclasses.replace(split, labels={**split.labels, **labels})

    order = tuple(known.get(task.name, task) for task in tasks)
    source = map_splits(source, parse)
    return dataclasses.replace(
        source, tasks=order if source.tasks else (), notes=(*source.notes, *notes.notes())
    )


def _texts(split: Arrays, name: str) -> list[str]:
    return [normalized(text) for text in np.unique(split.labels[name][split.present[name]])]


def _parsed(task: Task, split: Arrays) -> Any:
    label, present = split.labels[task.name], split.present[task.name]
    if not isinstance(label, np.ndarray) or not len(label):
        return label
    if label.dtype.kind != TEXT:
        if label.ndim == 1 or label.shape[-1] > 1 or type(task).placeholder is Task.placeholder:
            return label
        usual = np.ndim(task.placeholder(split.image.shape[1:3])) + 1
        return label[..., 0] if label.ndim == usual + 1 else label
    texts, first, inverse = np.unique(label[present], return_index=True, return_inverse=True)
    values = []
    for text, row in zip(texts, first, strict=True):
        try:
            values.append(task.parse(normalized(text)))
        except ValueError as error:
            row = np.flatnonzero(present)[row]
            raise ValueError(f"task {task.name!r}: label of example {row}: {error}") from None
    shape = np.shape(values[0]) if values else ()
    parsed = np.zeros((len(label), *shape), np.asarray(values).dtype if values else np.int32)
    if values:
        parsed[present] = np.stack(values)[inverse]
    return parsed
