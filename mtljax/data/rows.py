"""Examples in files: an image file per row, and labels that are cells of a table or files, too."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from mtljax.data.images import image_size, map_kind, read_image, read_map
from mtljax.data.reading import Raw, label_of
from mtljax.tasks import Task
from mtljax.tasks.warps import Pixels


@dataclasses.dataclass(frozen=True)
class FileRows:
    """Raw examples: row i has the image images[i] and, of task t, the label columns[t][i].

    Attributes:
      table: What lists them, for messages.
      images: Image files.
      numbers: Of the rows, for messages.
      columns: Per task and row a number, a word, a list, the path of a file, or None.
      tasks: Whose labels.
      channels: 1 or 3.
      size: What the images will be brought to; None: they have one size.
    """

    table: Path
    images: tuple[Path, ...]
    numbers: tuple[int, ...]
    columns: tuple[tuple[Any, ...], ...]
    tasks: tuple[Task, ...]
    channels: int
    size: Pixels | None

    def __len__(self) -> int:
        return len(self.images)

    def at(self, index: Sequence[int]) -> "FileRows":
        pick = lambda values: tuple(values[i] for i in index)
        return dataclasses.replace(
            self,
            images=pick(self.images),
            numbers=pick(self.numbers),
            columns=tuple(map(pick, self.columns)),
        )

    def place(self, index: int) -> str:
        return f"{self.table} row {self.numbers[index]} ({self.images[index].name})"

    def __getitem__(self, index: int) -> Raw:
        place = self.place(index)
        try:
            image = read_image(self.images[index], self.channels, self.size)
        except ValueError as error:
            raise ValueError(f"{place}: {error}") from None
        labels = {
            task.name: self._value(column[index], image.shape[:2], place)
            for task, column in zip(self.tasks, self.columns, strict=True)
        }
        return Raw(image, labels, place)

    def _value(self, value: Any, size: Pixels, place: str) -> Any:
        """A cell with what is in its file."""
        if isinstance(value, Path):
            try:
                return read_map(value)
            except ValueError as error:
                raise ValueError(f"{place}: {value.name}: {error}") from None
        if isinstance(value, Mapping) and value.get("size", size) != size:
            raise ValueError(
                f"{place}: has boxes for {' x '.join(map(str, value['size']))} pixels, but the "
                f"image is {' x '.join(map(str, size))}"
            )
        return value

    def check(self) -> None:
        """What can be found without decoding a file: words, numbers, sizes and kinds of files.

        Raises:
          ValueError: Something is wrong; names the row.
        """
        for task, column in zip(self.tasks, self.columns, strict=True):
            seen = set()
            for i, value in enumerate(column):
                if isinstance(value, (str, int, float, bool)) and value not in seen:
                    seen.add(value)
                    label_of(task, value, (1, 1), self.place(i))
            self._alike(column, map_kind)
        if self.size is None:
            self._alike(self.images, image_size, "; give size=(height,width)")

    def _alike(self, files: Sequence[Any], read: Callable[[Path], str], hint: str = "") -> None:
        """Raises ValueError unless `read` says the same of all files."""
        first: tuple[int, str] | None = None
        for i, file in enumerate(files):
            if not isinstance(file, Path):
                continue
            try:
                found = read(file)
            except ValueError as error:
                raise ValueError(f"{self.place(i)}: {file.name}: {error}") from None
            first = first or (i, found)
            if found != first[1]:
                raise ValueError(
                    f"{self.place(i)}: {file.name} is {found}, but that of row "
                    f"{self.numbers[first[0]]} is {first[1]}{hint}"
                )
