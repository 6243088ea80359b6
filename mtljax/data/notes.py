"""Notes on data: values that a source dropped, clipped, converted or did not match."""

import dataclasses
from typing import Literal

Kind = Literal["dropped", "clipped", "converted", "unmatched", "missing", "warning"]
"""What was done with values."""


@dataclasses.dataclass(frozen=True)
class Note:
    """Number of values that a source did not use as they are stored."""

    kind: Kind
    """What was done with the values."""
    what: str
    """Values and reason, in the plural, such as "crowd regions (iscrowd = 1)"."""
    count: int
    """Number of values."""
    first: str
    """File and row of the first one; "" if unknown."""

    def __str__(self) -> str:
        """Returns one line, such as "dropped 3 crowd regions, first: boxes.json annotation 7"."""
        start = "warning:" if self.kind == "warning" else f"{self.kind} {self.count}"
        times = f" ({self.count} of them)" if self.kind == "warning" and self.count > 1 else ""
        text = f"{start} {self.what}{times}"
        return f"{text}, first: {self.first}" if self.first else text


class NoteCounter:
    """Counter of notes with the same kind and text."""

    def __init__(self) -> None:
        self._notes: dict[tuple[Kind, str], Note] = {}

    def add(self, kind: Kind, what: str, place: str = "", count: int = 1) -> None:
        """Counts `count` values at a place; the place of the first one is recorded."""
        if count:
            old = self._notes.get((kind, what), Note(kind, what, 0, place))
            self._notes[kind, what] = dataclasses.replace(old, count=old.count + count)

    def notes(self) -> tuple[Note, ...]:
        """Returns the notes in the order of their first occurrence."""
        return tuple(self._notes.values())
