"""Raw examples in files: one image per row, with labels in table cells or in files."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from mtljax.data.base import Source
from mtljax.data.images import image_size, read_image, read_label_map, storage_format
from mtljax.data.lazy import (
    LazySplit,
    RawExample,
    StoredLabel,
    error_prefix,
    read_label,
    source_of_splits,
)
from mtljax.data.splitting import Membership
from mtljax.tasks import Task
from mtljax.tasks.warps import Pixels


@dataclasses.dataclass(frozen=True)
class FileExamples:
    """Raw examples: row i has the image images[i] and, for task t, the label columns[t][i].

    Attributes:
      table: Table or folder that lists the rows, for error messages.
      images: Image file of each row.
      numbers: Number of each row, for error messages.
      columns: Value of each task and row: a number, a word, a list, the path of a file, or None.
      tasks: Task of each column.
      channels: Number of channels of the images.
      size: Height and width that images are resized to; None if all have one size.
      members: Group and stratum of each row; empty without groups and strata.
    """

    table: Path
    images: tuple[Path, ...]
    numbers: tuple[int, ...]
    columns: tuple[tuple[Any, ...], ...]
    tasks: tuple[Task, ...]
    channels: int
    size: Pixels | None
    members: tuple[Membership, ...] = ()

    def __len__(self) -> int:
        return len(self.images)

    def at(self, index: Sequence[int]) -> "FileExamples":
        """Returns the examples at `index`."""
        images, numbers, *columns = (
            tuple(values[i] for i in index) for values in (self.images, self.numbers, *self.columns)
        )
        members = tuple(self.members[i] for i in index) if self.members else ()
        return dataclasses.replace(
            self, images=images, numbers=numbers, columns=tuple(columns), members=members
        )

    def membership(self, index: int) -> Membership:
        """Returns the group and the stratum of a row."""
        return self.members[index] if self.members else Membership()

    def place(self, index: int) -> str:
        """Returns the table, row and image file of an example, for error messages."""
        return f"{self.table} row {self.numbers[index]} ({self.images[index].name})"

    def __getitem__(self, index: int) -> RawExample:
        place = self.place(index)
        with error_prefix(place):
            image = read_image(self.images[index], self.channels, self.size)
            size = image.shape[:2] if self.size is None else image_size(self.images[index])
            labels = {
                task.name: _read_value(task, column[index], size)
                for task, column in zip(self.tasks, self.columns, strict=True)
            }
        return RawExample(image, labels, place, size)

    def check(self) -> None:
        """Raises ValueError, naming the row, for an invalid cell or unequal file types or sizes."""
        for task, column in zip(self.tasks, self.columns, strict=True):
            checked = set()
            for i, value in enumerate(column):
                if isinstance(value, (str, int, float, bool)) and value not in checked:
                    checked.add(value)
                    read_label(task, value, (1, 1), self.place(i))
            if task.one_file_type:
                self._require_equal(column, storage_format)
        if self.size is None:
            size = lambda image: "{} x {}".format(*image_size(image))
            self._require_equal(self.images, size, "; give size=(height,width)")

    def _require_equal(
        self, values: Sequence[Any], read: Callable[[Path], str], hint: str = ""
    ) -> None:
        """Raises ValueError unless `read` returns the same for all files among the values."""
        first: tuple[int, str] | None = None
        for i, file in enumerate(values):
            if isinstance(file, Path):
                with error_prefix(f"{self.place(i)}: {file.name}"):
                    description = read(file)
                first = first or (i, description)
                if description != first[1]:
                    other = f"that of row {self.numbers[first[0]]} is {first[1]}{hint}"
                    raise ValueError(f"{self.place(i)}: {file.name} is {description}, but {other}")


def _read_value(task: Task, value: Any, size: Pixels) -> Any:
    """Returns a cell, or the content of the file that it names."""
    if isinstance(value, Path):
        with error_prefix(value.name):
            return read_label_map(task, value)
    stated = value.size if isinstance(value, StoredLabel) else size
    stated = value.get("size", size) if isinstance(value, Mapping) else stated
    if stated != size:
        expected, actual = (" x ".join(map(str, pair)) for pair in (stated, size))
        raise ValueError(f"has labels for {expected} pixels, but the image is {actual}")
    return value.read() if isinstance(value, StoredLabel) else value


def source_of_files(examples: FileExamples, rows: Mapping[str, Sequence[int]]) -> Source:
    """Returns a source of image files, from all examples and the rows of each split."""
    for name, index in rows.items():
        if not index:
            raise ValueError(
                f"{examples.table}: none of {len(examples)} rows is in the {name} split; name the "
                "splits in a column, or give other shares (validation=..., test=...)"
            )
    split = lambda index: LazySplit(examples.at(index), examples.tasks, examples.size)
    return source_of_splits({name: split(index) for name, index in rows.items()}, 0.0, 255.0)
