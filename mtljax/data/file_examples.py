"""Raw examples in files: one image per row, with labels in table cells or in files."""

import collections
import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from mtljax.data.base import Source
from mtljax.data.files.encoded import ImageFile, opened
from mtljax.data.files.images import image_size, read_content, read_label_map, storage_format
from mtljax.data.files.jpeg import Decoder, decoder_version
from mtljax.data.fingerprints import fingerprint
from mtljax.data.lazy import LazySplit, RawExample, StoredLabel, clean_label, source_of_splits
from mtljax.data.membership import Membership
from mtljax.data.notes import NoteCounter
from mtljax.data.packs import IMAGE
from mtljax.tasks import Task
from mtljax.tasks.warps import Pixels
from mtljax.utils.text import count, error_prefix, joined


@dataclasses.dataclass(frozen=True)
class FileExamples:
    """Raw examples: row i has the image images[i] and, for task t, the label columns[t][i].

    Attributes:
      table: Table or folder that lists the rows, for error messages.
      images: Image file of each row.
      numbers: Number of each row, for error messages; empty if the rows are in no table.
      columns: Value of each task and row: a number, a word, a list, a file, or None.
      tasks: Task of each column.
      channels: Number of channels of the images.
      size: Height and width that images are resized to; None if all have one size.
      members: Group and stratum of each row; empty without groups and strata.
      unusable: Rows that cannot be used, which raise ValueError if they are read: {row: message}.
      decoder: Decoder of JPEG files.
    """

    table: Path
    images: tuple[ImageFile, ...]
    numbers: tuple[int | str, ...]
    columns: tuple[tuple[Any, ...], ...]
    tasks: tuple[Task, ...]
    channels: int
    size: Pixels | None
    members: tuple[Membership, ...] = ()
    unusable: Mapping[int, str] = dataclasses.field(default_factory=dict)
    decoder: Decoder = "turbo"

    def __len__(self) -> int:
        return len(self.images)

    def at(self, index: Sequence[int]) -> "FileExamples":
        """Returns the examples at `index`."""
        images, *columns = (
            tuple(values[i] for i in index) for values in (self.images, *self.columns)
        )
        numbers = tuple(self.numbers[i] for i in index) if self.numbers else ()
        members = tuple(self.members[i] for i in index) if self.members else ()
        known = self.unusable
        return dataclasses.replace(
            self,
            images=images,
            numbers=numbers,
            columns=tuple(columns),
            members=members,
            unusable={new: known[old] for new, old in enumerate(index) if old in known},
        )

    def membership(self, index: int) -> Membership:
        """Returns the group and the stratum of a row."""
        return self.members[index] if self.members else Membership()

    def faults(self) -> Mapping[int, str]:
        """Returns the examples that are known to be unusable."""
        return self.unusable

    def place(self, index: int) -> str:
        """Returns the table, row and image file of an example, for error messages."""
        image = self.images[index]
        if not self.numbers:
            return str(image)
        return f"{self.table} row {self.numbers[index]}{f' ({image.name})' if image.name else ''}"

    def __getitem__(self, index: int) -> RawExample:
        if index in self.unusable:
            raise ValueError(self.unusable[index])
        place = self.place(index)
        with error_prefix(place):
            file = opened(self.images[index])
            image, _, size = read_content(file, self.channels, self.size, self.decoder)
            labels = {
                task.name: _read_value(task, column[index], size)
                for task, column in zip(self.tasks, self.columns, strict=True)
            }
        return RawExample(image, labels, place, size)

    def identity(self) -> dict[str, str]:
        """Returns hashes of what the images, and each task's labels, depend on; see `cache`.

        Raises:
          TypeError: A task or label has no hash.
        """
        usable = [i for i in range(len(self)) if i not in self.unusable]
        of_usable = lambda values: [values[i] for i in usable]
        settings = self.channels, self.size, decoder_version(self.decoder)
        image = fingerprint(of_usable(self.images), sorted(self.unusable.items()), settings)
        labels = {
            task.name: fingerprint(image, task, of_usable(column))
            for task, column in zip(self.tasks, self.columns, strict=True)
        }
        return {IMAGE: image, **labels}

    def checked(self, notes: NoteCounter) -> "FileExamples":
        """Returns the examples with all rows in `unusable` that are so without reading images.

        These are rows with a missing image, an invalid cell, or a file of another type or size than
        most. `notes` counts what `Task.clean` changes in cells.
        """
        unusable = dict(self.unusable)
        for column in (self.images, *self.columns):
            for i, file in enumerate(column):
                if i not in unusable and isinstance(file, Path) and not file.is_file():
                    unusable[i] = f"{self.place(i)}: there is no file {file}"
        size_of = functools.cache(lambda i: image_size(opened(self.images[i])))
        if self.size is None:
            text = lambda i: "{} x {}".format(*size_of(i))
            self._require_equal(self.images, text, unusable, "; give size=(height,width)")
        for task, column in zip(self.tasks, self.columns, strict=True):
            self._check_cells(task, column, size_of, unusable, notes)
            if task.one_file_type:
                form = lambda i, column=column: storage_format(opened(column[i]))
                self._require_equal(column, form, unusable)
        return dataclasses.replace(self, unusable=unusable)

    def _check_cells(
        self,
        task: Task,
        column: Sequence[Any],
        size_of: Callable[[int], Pixels],
        unusable: dict[int, str],
        notes: NoteCounter,
    ) -> None:
        """Adds the rows with an invalid cell to `unusable`."""
        is_cleaned = type(task).clean is not Task.clean
        needs_size = is_cleaned and task.cleans_by_size
        valid = set()
        for i, value in enumerate(column):
            if value is None or isinstance(value, ImageFile | StoredLabel) or i in unusable:
                continue
            if not is_cleaned and isinstance(value, (str, int, float, bool)) and value in valid:
                continue
            try:
                with error_prefix(f"{self.place(i)}: {self.images[i].name}"):
                    size = size_of(i) if needs_size else (1, 1)
                if needs_size:
                    with error_prefix(self.place(i)):
                        _require_size(value, size)
                _, changed = clean_label(task, value, size, self.place(i))
            except ValueError as error:
                unusable[i] = str(error)
                continue
            for (kind, what), number in changed.items():
                notes.add(kind, f"{what} of task {task.name!r}", self.place(i), number)
            if isinstance(value, (str, int, float, bool)):
                valid.add(value)

    def _require_equal(
        self,
        values: Sequence[Any],
        describe: Callable[[int], str],
        unusable: dict[int, str],
        hint: str = "",
    ) -> None:
        """Adds the rows whose file is described otherwise than most to `unusable`."""
        descriptions: dict[int, str] = {}
        for i, file in enumerate(values):
            if isinstance(file, ImageFile) and i not in unusable:
                try:
                    with error_prefix(f"{self.place(i)}: {file.name}"):
                        descriptions[i] = describe(i)
                except ValueError as error:
                    unusable[i] = str(error)
        if len(set(descriptions.values())) < 2:
            return
        usual, _ = collections.Counter(descriptions.values()).most_common(1)[0]
        other = next(i for i, description in descriptions.items() if description == usual)
        first = f"row {self.numbers[other]}" if self.numbers else values[other].name
        for i, description in descriptions.items():
            if description != usual:
                unusable[i] = (
                    f"{self.place(i)}: {values[i].name} is {description}, but that of {first} is "
                    f"{usual}{hint}"
                )


def _read_value(task: Task, value: Any, size: Pixels) -> Any:
    """Returns a cell, or the content of the file that it names."""
    if isinstance(value, ImageFile):
        with error_prefix(value.name):
            return read_label_map(task, opened(value))
    _require_size(value, size)
    return value.read() if isinstance(value, StoredLabel) else value


def _require_size(value: Any, size: Pixels) -> None:
    """Raises ValueError if a label belongs to an image of another size."""
    stated = value.get("size") if isinstance(value, Mapping) else getattr(value, "size", None)
    if isinstance(stated, tuple) and stated != size:
        expected, actual = (" x ".join(map(str, pair)) for pair in (stated, size))
        is_turned = stated == size[::-1]
        hint = "; an EXIF orientation may turn the image: label it upright" if is_turned else ""
        raise ValueError(f"has labels for {expected} pixels, but the image is {actual}{hint}")


def source_of_files(
    examples: FileExamples, rows: Mapping[str, Sequence[int]], notes: NoteCounter
) -> Source:
    """Returns a source of image files, from all examples and the rows of each split.

    The examples are checked; see `FileExamples.checked`. A split without rows, and training rows
    without labels of some task, are in `Source.unusable`.
    """
    examples = examples.checked(notes)
    noun = "row" if examples.numbers else "image"
    used = joined([name for name, index in rows.items() if index]) or "none"
    unusable = {
        name: f"{examples.table}: none of {count(len(examples), noun)} is in the {name} split, only"
        f" in {used}; name the splits, or give other shares (validation=..., test=...)"
        for name, index in rows.items()
        if not index
    }
    for task, column in zip(examples.tasks, examples.columns, strict=True):
        labeled = [i for i in rows["train"] if column[i] is not None]
        if not labeled:
            known = examples.unusable
            fault = next((f"; the first: {known[i]}" for i in rows["train"] if i in known), "")
            message = f"task {task.name!r} has no label in any training {noun}{fault}"
            unusable.setdefault("train", f"{examples.table}: {message}")
    split = lambda index: LazySplit(examples.at(index), examples.tasks, examples.size)
    splits = {name: split(index) for name, index in rows.items()}
    source = source_of_splits(splits, 0.0, 255.0, examples.tasks)
    return dataclasses.replace(source, notes=notes.notes(), unusable=unusable)
