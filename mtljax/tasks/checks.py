"""Checks of task settings and labels; each raises ValueError with a message of one line."""

from typing import Any, get_args

import numpy as np
from jaxtyping import Bool

from mtljax.tasks.base import Task
from mtljax.utils.text import quoted


def require_setting(task: Task, field: str, valid: bool, rule: str) -> None:
    """Raises ValueError unless a field of the task is valid."""
    if not valid:
        raise ValueError(
            f"task {task.name!r}: {field} must be {rule}, not {getattr(task, field)!r}"
        )


def require_least(task: Task, least: int, *fields: str) -> None:
    """Raises ValueError unless these fields are >= `least`."""
    for field in fields:
        require_setting(task, field, getattr(task, field) >= least, f">= {least}")


def require_positive(task: Task, *fields: str) -> None:
    """Raises ValueError unless these fields are > 0; NaN is not."""
    for field in fields:
        require_setting(task, field, getattr(task, field) > 0, "> 0")


def require_choice(task: Task, field: str, choices: Any) -> None:
    """Raises ValueError unless a field has one of the values of a `Literal`."""
    values = get_args(choices)
    require_setting(task, field, getattr(task, field) in values, f"one of {', '.join(values)}")


def require_classes(task: Any, least: int) -> None:
    """Raises ValueError unless `num_classes` >= `least` and `class_names` is empty or matches."""
    require_least(task, least, "num_classes")
    repeated = [name for name in task.class_names if task.class_names.count(name) > 1]
    if repeated:
        raise ValueError(f"task {task.name!r}: two classes have the name {quoted(repeated[0])}")
    if task.class_names and len(task.class_names) != task.num_classes:
        names = len(task.class_names)
        raise ValueError(f"task {task.name!r}: {names} class_names for {task.num_classes} classes")


def require(name: str, valid: Bool[np.ndarray, "..."], labels: np.ndarray, rule: str) -> None:
    """Raises ValueError with the first example and value that is not `valid`."""
    if not valid.all():
        index = tuple(int(i) for i in np.argwhere(~valid)[0])
        position = f" at {index[1:]}" if len(index) > 1 else ""
        raise ValueError(
            f"task {name!r}: label of example {index[0]} is {labels[index]}{position}; {rule}"
        )


def require_finite(name: str, labels: np.ndarray) -> None:
    """Raises ValueError with the first label that is NaN or infinite."""
    rule = "labels must be finite (mark a missing one in `present`)"
    require(name, np.isfinite(labels), labels, rule)
    limit = np.finfo(np.float32).max
    require(name, np.abs(labels) <= limit, labels, "labels must be in the range of float32")


def require_class_indices(
    name: str, labels: np.ndarray, count: int, special: int | None = None, meaning: str = ""
) -> None:
    """Raises ValueError unless labels are integers in 0..count - 1, or `special` for `meaning`.

    If `count` is 0, there is no maximum.
    """
    valid = (labels >= 0) & (labels < (count or np.inf)) & (labels == np.floor(labels))
    rule = f"a class must be an integer in 0..{count - 1}" if count else "a class must be >= 0"
    if special is not None:
        valid |= labels == special
        rule += f", or {special} for {meaning}"
    require(name, valid, labels, rule)


def require_pixel(name: str, valid: Bool[np.ndarray, " N"], what: str) -> None:
    """Raises ValueError if no example is `valid`: none has a labeled pixel."""
    if len(valid) and not valid.any():
        raise ValueError(f"task {name!r}: no label has a pixel with {what}")


def require_shape(name: str, labels: np.ndarray, shape: tuple[int | None, ...]) -> None:
    """Raises ValueError unless labels have this shape after the first axis; None is any size."""
    sizes = labels.shape[1:]
    if len(sizes) != len(shape) or any(
        expected not in (None, size) for size, expected in zip(sizes, shape, strict=True)
    ):
        expected = ", ".join(["N", *("?" if size is None else str(size) for size in shape)])
        raise ValueError(f"task {name!r}: labels of shape {labels.shape}; must be [{expected}]")
