"""Classes of a data set against the `class_names` that a task requests."""

from collections.abc import Collection

from mtljax.tasks import Task
from mtljax.utils.registry import nearest


def absent_class(place: object, task: Task, names: Collection[str], noun: str) -> str:
    """Returns a message if a task requests a class that the data set lacks, else "".

    Training needs all classes; other splits can be evaluated with some.

    Args:
      noun: Word for a class of the data set, such as "folder".
    """
    for name in getattr(task, "class_names", ()):
        if name not in names:
            which = f"{noun} {name!r}, which is in class_names of task {task.name!r}"
            return f"{place} has no {which}{nearest(name, names)}"
    return ""
