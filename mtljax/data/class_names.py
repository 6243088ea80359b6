"""Classes of a data set against the `class_names` that a task requests."""

import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from mtljax.data.notes import NoteCounter
from mtljax.tasks import Task
from mtljax.utils.registry import nearest
from mtljax.utils.text import shortened


def requested_names(task: Task, names: Iterable[str]) -> dict[str, str]:
    """Returns {name in the data: name in the task} of the classes that a task requests.

    Names are equal up to white space and Unicode normal form. A task without `class_names` requests
    all classes.
    """
    own = getattr(task, "class_names", ())
    if not own:
        return {name: name for name in names}
    by_key = {_key(name): name for name in own}
    return {name: by_key[_key(name)] for name in names if _key(name) in by_key}


def absent_class(place: object, task: Task, names: Sequence[str], noun: str) -> str:
    """Returns a message if a task requests a class that the data set lacks, else "".

    Training needs all classes; other splits can be evaluated with some.

    Args:
      noun: Word for a class of the data set, such as "folder".
    """
    present = set(requested_names(task, names).values())
    for name in getattr(task, "class_names", ()):
        if name not in present:
            which = f"{noun} {shortened(name)!r}, which is in class_names of task {task.name!r}"
            return f"{place} has no {which}{nearest(name, map(shortened, names))}"
    return ""


def note_similar_classes(task: Task, names: Iterable[str], notes: NoteCounter) -> None:
    """Notes classes of the data that may be one class, written in two ways."""
    names_by_key: dict[str, str] = {}
    for name in names:
        key = unicodedata.normalize("NFKC", _key(name)).casefold()
        other = names_by_key.setdefault(key, name)
        if other != name:
            pair = [shortened(other), shortened(name)]
            first, second = map(ascii, [other, name]) if pair[0] == pair[1] else map(repr, pair)
            what = f"task {task.name!r}: {first} and {second} are two classes"
            notes.add("warning", f"{what}; write them equally if they are one")


def _key(name: Any) -> str:
    return " ".join(unicodedata.normalize("NFC", str(name)).split())


class OtherClasses:
    """Counter of objects of classes that a task does not request."""

    FEW = 3
    """Largest number of classes that are noted one by one."""

    def __init__(self) -> None:
        self._found: dict[str, tuple[int, str]] = {}

    def add(self, name: str, place: str) -> None:
        """Counts one object."""
        count, first = self._found.get(name, (0, place))
        self._found[name] = count + 1, first

    def note(self, noun: str, notes: NoteCounter) -> None:
        """Adds what was counted to the notes, such as "dropped 3 boxes of category 'dog'"."""
        counts: Mapping[str, tuple[int, str]] = self._found
        if len(counts) > self.FEW:
            total, first = (
                sum(count for count, _ in counts.values()),
                next(iter(counts.values()))[1],
            )
            what = f"{noun} of {len(counts)} categories that are not in class_names"
            notes.add("dropped", what, first, total)
            return
        for name, (count, first) in counts.items():
            notes.add("dropped", f"{noun} of category {shortened(name)!r}", first, count)
