"""Fields of tasks that are derived from the data: classes, centers and scales."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from mtljax.data.base import Arrays, Source, Split
from mtljax.data.pipeline import stack
from mtljax.tasks import Task
from mtljax.utils.text import number, shortened

MAX_EXAMPLES = 1000
"""Maximum number of examples that are read for the labels of a split that is not in memory."""
MAX_LISTED = 12
"""Number of values that are listed."""


def complete(task: Task, values: Mapping[str, Any]) -> Task:
    """Returns the task with its unset fields taken from {field: value}."""
    unset = [*task.derived, *(["class_names"] if getattr(task, "class_names", True) == () else [])]
    fields = {field: values[field] for field in unset if values.get(field) is not None}
    return dataclasses.replace(task, **fields) if fields else task


def named_tasks(tasks: Sequence[Task], source: Source) -> tuple[Task, ...]:
    """Returns the tasks with what the source knows without reading examples: class names."""
    named = {task.name: vars(task) for task in source.tasks}
    return tuple(complete(task, named.get(task.name, {})) for task in tasks)


def resolve_tasks(
    tasks: Sequence[Task], source: Source, highest: Mapping[str, int] | None = None
) -> tuple[Task, ...]:
    """Returns the tasks with all fields that the data determines.

    Class names are those of the source. Other fields are derived from the training labels: from
    all if they are in memory, else from `MAX_EXAMPLES`, evenly spaced. The number of classes is
    that of all splits, in memory or, with `highest`, not.

    Args:
      highest: Highest class of each task in all splits, if all labels were read before.

    Raises:
      ValueError: A task lacks a field that cannot be derived.
    """
    resolved = named_tasks(tasks, source)
    if not any(task.derived for task in resolved):
        return resolved
    labels = _labels([task for task in resolved if task.derived], source.train)
    return tuple(
        _resolve(task, labels[task.name], source, highest) if task.derived else task
        for task in resolved
    )


def _resolve(task: Task, labels: Any, source: Source, highest: Mapping[str, int] | None) -> Task:
    if "num_classes" in task.derived:
        task = _with_number_of_classes(task, source, highest)
    if labels is None or not len(jax.tree.leaves(labels)[0]):
        if task.is_resolved:
            return task
        raise ValueError(f"task {task.name!r}: no training labels; set {', '.join(task.derived)}")
    return task.resolve(labels)


def _with_number_of_classes(task: Any, source: Source, highest: Mapping[str, int] | None) -> Task:
    """Returns the task with the number of classes in all splits, and no other derived field."""
    splits = source.splits().values()
    parts = [_present(split, task.name) for split in splits if isinstance(split, Arrays)]
    if len(parts) < len(splits):
        if highest is None:
            raise ValueError(
                f"task {task.name!r}: set num_classes or class_names, which are derived only from "
                "data in memory"
            )
        number = highest.get(task.name, -1) + 1
        return dataclasses.replace(task, num_classes=max(number, task.fewest_classes))
    labels = jax.tree.map(lambda *x: np.concatenate(x), *parts)
    if not len(jax.tree.leaves(labels)[0]):
        return task
    return dataclasses.replace(task, num_classes=task.resolve(labels).num_classes)


def _present(split: Arrays, name: str) -> Any:
    return jax.tree.map(lambda x: x[split.present[name]], split.labels[name])


def _labels(tasks: Sequence[Task], split: Split) -> dict[str, Any]:
    """Returns the labels of each task [N, ...] without missing ones; None if there is none."""
    if isinstance(split, Arrays):
        return {task.name: _present(split, task.name) for task in tasks}
    rows = np.unique(np.linspace(0, len(split) - 1, min(len(split), MAX_EXAMPLES)).astype(int))
    labels_of: dict[str, list[Any]] = {task.name: [] for task in tasks}
    for row in rows:
        try:
            example = split[int(row)]
        except ValueError:
            continue  # reported where the example is used
        for name, labels in labels_of.items():
            if example["present"][name]:
                labels.append(example["labels"][name])
    return {name: stack(labels) if labels else None for name, labels in labels_of.items()}


def derivations(before: Sequence[Task], after: Sequence[Task]) -> list[str]:
    """Returns a line for each task whose fields were derived from the data."""
    lines = []
    for old, new in zip(before, after, strict=True):
        changed = [
            field.name
            for field in dataclasses.fields(new)
            if getattr(old, field.name) != getattr(new, field.name)
        ]
        if changed:
            values = ", ".join(f"{name} {_text(getattr(new, name))}" for name in changed)
            lines.append(f"task {new.name!r}: {values}, from the data")
    return lines


def _text(value: Any) -> str:
    if not isinstance(value, tuple):
        return number(value, 4) if isinstance(value, float) else shortened(str(value), 40)
    more = ", ..." if len(value) > MAX_LISTED else ""
    return f"({', '.join(map(_text, value[:MAX_LISTED]))}{more})"
