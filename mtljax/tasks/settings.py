"""Checks of settings that several kinds of task have. Each raises ValueError, in one line."""

from typing import Any, get_args

from mtljax.tasks.base import Task


def require_least(task: Task, least: int, *fields: str) -> None:
    """That these fields are at least so large."""
    for field in fields:
        if getattr(task, field) < least:
            raise ValueError(
                f"task {task.name!r}: {field} must be >= {least}, not {getattr(task, field)}"
            )


def require_positive(task: Task, *fields: str) -> None:
    """That these fields are above 0, NaN not being so."""
    for field in fields:
        if not getattr(task, field) > 0:
            raise ValueError(f"task {task.name!r}: {field} must be > 0, not {getattr(task, field)}")


def require_choice(task: Task, field: str, choices: Any) -> None:
    """That a field is one of a `Literal`."""
    if getattr(task, field) not in get_args(choices):
        raise ValueError(
            f"task {task.name!r}: {field} must be one of {', '.join(get_args(choices))}, "
            f"not {getattr(task, field)!r}"
        )


def require_classes(task: Any, least: int) -> None:
    """That `num_classes` is at least so large, and `class_names`, if there are any, as many."""
    require_least(task, least, "num_classes")
    if task.class_names and len(task.class_names) != task.num_classes:
        raise ValueError(
            f"task {task.name!r}: {len(task.class_names)} class_names for "
            f"{task.num_classes} classes"
        )
