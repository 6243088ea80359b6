"""Images with their labels, as listed by a data set, and the source that contains them."""

import collections
import dataclasses
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from mtljax.data.annotations.base import AnnotatedImage, AnnotationSet
from mtljax.data.annotations.labels import Labels, label_name, read_labels
from mtljax.data.base import LabelRequest, Source, require_labels
from mtljax.data.file_examples import FileExamples, source_of_files
from mtljax.data.files.jpeg import Decoder
from mtljax.data.layouts import Pairs, is_file, is_utf8, relative_name
from mtljax.data.membership import Membership, groups_of_names, require_whole_groups
from mtljax.data.notes import NoteCounter
from mtljax.data.sources.arguments import read_size
from mtljax.data.splitting import SPLITS, split_rows
from mtljax.tasks import Task
from mtljax.utils.text import shortened


@dataclasses.dataclass(frozen=True)
class Entry:
    """Image with the raw label of each task.

    Attributes:
      image: Image file.
      values: Raw label of each task; None for a missing one.
      split: "train", "validation" or "test"; None if the data set does not define it.
      fault: Reason why the labels cannot be used; "" if they can.
      member: Group and stratum of the image.
    """

    image: Path
    values: tuple[Any, ...]
    split: str | None = None
    fault: str = ""
    member: Membership = Membership()


@dataclasses.dataclass(frozen=True)
class Opening:
    """Arguments that sources of image files share; see `class_folders`."""

    size: tuple[int, ...] | None
    """Height and width to resize images to; None: as stored."""
    channels: int
    """Number of channels to convert images to."""
    validation: float
    """Fraction of validation examples in data without this split."""
    test: float
    """Fraction of test examples in data without this split."""
    seed: int
    """Seed of the division into splits."""
    group: str | None = None
    """Pattern of the groups that splits do not divide; None: no groups."""
    decoder: Decoder = "turbo"
    """Decoder of JPEGs."""

    def require_channels(self, place: str) -> None:
        """Raises ValueError, which names `place`, if images would have no channel."""
        if self.channels < 1:
            raise ValueError(f"{place}: channels must be >= 1, not {self.channels}")

    def source(
        self,
        root: Path,
        entries: Sequence[Entry],
        tasks: Sequence[Task],
        notes: NoteCounter,
        unusable: Mapping[str, str],
    ) -> Source:
        """Returns a source of all entries, with the splits of the data set, or else by a hash.

        Args:
          unusable: Splits that cannot be used; see `Source.unusable`.

        Raises:
          ValueError: An argument is invalid, or a group is in several splits.
        """
        self.require_channels(str(root))
        entries = drop_without_split(entries, notes)
        if not entries:
            raise ValueError(f"{root}: no image has a label of any task")
        names = [relative_name(root, entry.image) for entry in entries]
        unreadable = {
            row: f"{root}: image {shortened(name, 200)}: the name is not in UTF-8; rename the file"
            for row, (name, entry) in enumerate(zip(names, entries, strict=True))
            if not is_utf8(str(entry.image))
        }
        members = tuple(entry.member for entry in entries)
        if self.group is not None:
            groups = groups_of_names(str(root), names, self.group)
            members = tuple(m._replace(group=g) for m, g in zip(members, groups, strict=True))
        rows = self.split(names, members, [entry.split for entry in entries], notes)
        require_whole_groups(str(root), rows, members)
        examples = FileExamples(
            table=root,
            images=tuple(entry.image for entry in entries),
            numbers=(),
            columns=tuple(tuple(e.values[i] for e in entries) for i in range(len(tasks))),
            tasks=tuple(tasks),
            channels=self.channels,
            size=read_size(self.size, root.name),
            members=members,
            unusable=unreadable
            | {row: entry.fault for row, entry in enumerate(entries) if entry.fault},
            decoder=self.decoder,
        )
        source = source_of_files(examples, rows, notes)
        return dataclasses.replace(source, unusable={**source.unusable, **unusable})

    def split(
        self,
        names: Sequence[str],
        members: Sequence[Membership],
        splits: Sequence[str | None],
        notes: NoteCounter,
    ) -> Mapping[str, Sequence[int]]:
        """Returns the rows of each split; a split that is absent is cut from the training rows."""
        if not any(splits):
            return split_rows(names, members, self.validation, self.test, self.seed, notes)
        rows: dict[str, list[int]] = {name: [] for name in SPLITS}
        for row, name in enumerate(splits):
            rows[str(name)].append(row)
        absent = {
            name: share
            for name, share in (("validation", self.validation), ("test", self.test))
            if not rows[name]
        }
        if absent and rows["train"]:
            train = rows["train"]
            cut = split_rows(
                [names[row] for row in train],
                [members[row] for row in train],
                self.validation,
                self.test,
                self.seed,
                notes,
            )
            for name, share in absent.items():
                rows[name] = [train[i] for i in cut[name]]
                what = (
                    f"training images to the {name} split, which the data set lacks: {share:.0%}, "
                    f"by a hash of the file name ({name}=SHARE changes the share)"
                )
                first = names[rows[name][0]] if rows[name] else ""
                notes.add("converted", what, first, len(rows[name]))
            held_out = {row for name in absent for row in rows[name]}
            rows["train"] = [row for row in train if row not in held_out]
        return rows


def drop_without_split(entries: Sequence[Entry], notes: NoteCounter) -> list[Entry]:
    """Returns the entries that have a split, or all if none has one."""
    if not any(entry.split for entry in entries):
        return list(entries)
    for entry in entries:
        if not entry.split:
            notes.add("dropped", "images outside of the splits", str(entry.image))
    return [entry for entry in entries if entry.split]


def drop_unlabelled(entries: Sequence[Entry], notes: NoteCounter) -> list[Entry]:
    """Returns the entries that have a label of any task, or a fault."""
    for entry in entries:
        if not _is_useful(entry):
            notes.add("dropped", "images without a label of any task", str(entry.image))
    return [entry for entry in entries if _is_useful(entry)]


def _is_useful(entry: Entry) -> bool:
    return bool(entry.fault) or any(value is not None for value in entry.values)


def check_requests(
    place: str, requests: Sequence[LabelRequest], absent: Collection[str] = ()
) -> None:
    """Raises ValueError for a label that is neither the task's name nor the label of its kind.

    Args:
      absent: Names of labels that the format does not have.
    """
    for request in requests:
        label = label_name(place, request.task, absent)
        require_labels(place, [request], (request.task.name, label))


def annotated_images(
    root: Path,
    images: Iterable[Path],
    pairs: Pairs,
    read: Callable[[Path, Sequence[Path]], AnnotatedImage | None],
) -> tuple[dict[str, AnnotatedImage], dict[str, str]]:
    """Reads the annotations of images that have one label file each.

    Args:
      pairs: Label files of the images that exist.
      read: Returns the annotations of an image with these label files, None without any.

    Returns:
      Annotations by name, and the reasons why those of some images cannot be used.
    """
    annotated: dict[str, AnnotatedImage] = {}
    faults: dict[str, str] = {}
    for image in images:
        name = relative_name(root, image)
        try:
            if not is_file(image):
                raise ValueError(f"there is no file {shortened(str(image), 200)}")
            content = read(image, pairs.files.get(image, []))
        except ValueError as error:
            content, faults[name] = AnnotatedImage((1, 1), (), str(image)), str(error)
        if content is not None:
            annotated[name] = content
    return annotated, faults


def annotated_entries(
    annotations: Sequence[AnnotationSet | None],
    tasks: Sequence[Task],
    images: Mapping[str, Path],
    splits: Mapping[str, str | None],
    notes: NoteCounter,
) -> list[Entry]:
    """Returns images with the label of each task.

    Args:
      annotations: Annotations with the labels of each task.
      images: Name in the annotations -> image file.
      splits: Name -> split.
    """
    labels = [
        Labels({}, {}) if annotation_set is None else read_labels(annotation_set, task, notes)
        for annotation_set, task in zip(annotations, tasks, strict=True)
    ]
    entries = []
    for name, image in images.items():
        values = tuple(label.values.get(name) for label in labels)
        fault = next((label.faults[name] for label in labels if name in label.faults), "")
        entries.append(Entry(image, values, splits[name], fault))
    return entries


def without_labels(
    root: Path,
    splits: Mapping[Path, str | None],
    labeled: Collection[Path],
    expected: str,
    notes: NoteCounter,
) -> tuple[dict[Path, str | None], dict[str, str]]:
    """Returns the images, without splits in which no image has a file with its labels.

    Args:
      labeled: Images with such a file.
      expected: Description of these files, for messages.

    Returns:
      The split of each image, and splits that cannot be used; see `Source.unusable`.

    Raises:
      ValueError: No image has such a file.
    """
    sizes = collections.Counter(splits.values())
    known = {split for image, split in splits.items() if image in labeled}
    fault = f"{root}: no training image has a file with its labels: {expected}"
    if not known - {None} and (any(sizes) or not known):
        raise ValueError(fault)
    for split in sizes.keys() - known - {None}:
        text = f"images of the {split} split, none of which has a file with its labels"
        notes.add("dropped", text, count=sizes[split])
    kept = {image: split for image, split in splits.items() if split in known or split is None}
    return kept, {} if known & {"train", None} else {"train": fault}
