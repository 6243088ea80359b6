"""Examples that cannot be used: detected, reported, and left out."""

from collections.abc import Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

from mtljax.data.base import Arrays, Example, Source, Split, faults_of, place_of
from mtljax.data.droplist import with_splits, without_rows
from mtljax.data.notes import NoteCounter
from mtljax.data.pipeline import READER_THREADS
from mtljax.data.pool import ExampleId
from mtljax.utils.text import count


class Problem(NamedTuple):
    """Example that cannot be used, and why."""

    place: ExampleId
    """Split and row of the example."""
    where: str
    """Its file and row; "" if unknown."""
    cause: str
    """Reason why it cannot be used."""

    @property
    def message(self) -> str:
        """All of it in one line."""
        return f"{self.where}: {self.cause}" if self.where else self.cause


def problem_of(name: str, split: Split, row: int, message: str) -> Problem:
    """Returns the problem of a row of the split `name` with this message of an error."""
    where = place_of(split, row)
    if not message.startswith(f"{where}: "):
        where = ""
    return Problem(ExampleId(name, row), where, message.removeprefix(f"{where}: "))


def by_cause(problems: Sequence[Problem]) -> list[tuple[str, list[Problem]]]:
    """Returns the causes with their problems, the most frequent cause first."""
    groups: dict[str, list[Problem]] = {}
    for problem in problems:
        groups.setdefault(problem.cause, []).append(problem)
    return sorted(groups.items(), key=lambda item: -len(item[1]))


def read_examples(split: Split) -> Iterator[Example | ValueError]:
    """Reads all examples in order, by several threads; an unusable one is its error."""

    def read(row: int) -> Example | ValueError:
        try:
            return split[row]
        except (ValueError, OSError) as error:
            return error if isinstance(error, ValueError) else ValueError(str(error))

    with ThreadPoolExecutor(READER_THREADS) as pool:
        for start in range(0, len(split), 64):  # bounds the number of examples in memory
            yield from pool.map(read, range(start, min(start + 64, len(split))))


def known_problems(source: Source) -> list[Problem]:
    """Returns the problems that are known without reading images."""
    return [
        problem_of(name, split, row, message)
        for name, split in source.splits().items()
        for row, message in sorted(faults_of(split).items())
    ]


def require_no_problems(problems: Sequence[Problem]) -> None:
    """Raises ValueError with the first problem and the number of others."""
    if problems:
        rest = len(problems) - 1
        more = f"; {count(rest, 'further example')} cannot be used either" if rest else ""
        raise ValueError(
            f"{problems[0].message}{more} (`data` lists all; --data.on-error skip leaves them out)"
        )


def without_problems(source: Source, parts: Collection[str]) -> Source:
    """Returns the source without the examples of some splits that cannot be read.

    Reads these splits. The notes count what is left out.

    Raises:
      ValueError: A split has no usable example.
    """
    splits, notes = source.splits(), NoteCounter()
    for name in parts:
        split = splits[name]
        if isinstance(split, Arrays):
            continue
        problems = {
            ExampleId(name, row): str(example)
            for row, example in enumerate(read_examples(split))
            if isinstance(example, ValueError)
        }
        if len(problems) == len(split):
            first = problems[ExampleId(name, 0)]
            raise ValueError(f"no example of the {name} split can be used, the first: {first}")
        for message in problems.values():
            notes.add("dropped", f"examples of the {name} split that cannot be used", message)
        splits[name] = without_rows(name, split, problems)
    return with_splits(source, splits, notes) if notes.notes() else source
