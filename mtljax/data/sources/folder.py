"""Source of a user's data: a folder of images and a table of their labels."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path

from mtljax.data.annotations.coco import read_column
from mtljax.data.base import LabelRequest, Source
from mtljax.data.file_examples import FileExamples, source_of_files
from mtljax.data.files.encoded import ImageFile
from mtljax.data.files.jpeg import Decoder
from mtljax.data.membership import Membership, members_of_table, require_whole_groups
from mtljax.data.notes import NoteCounter
from mtljax.data.rows import Table
from mtljax.data.sources.arguments import find_folder, read_size
from mtljax.data.sources.coco import coco
from mtljax.data.sources.entries import Opening
from mtljax.data.tables.box_rows import merge_boxes
from mtljax.data.tables.cells import MISSING, MissingMarkers
from mtljax.data.tables.image_names import FileFinder
from mtljax.data.tables.images import note_unused_images, read_images, without_repeated
from mtljax.data.tables.labels import Labels, read_labels
from mtljax.data.tables.splits import note_unused_splits, read_splits
from mtljax.data.tables.table import find_tables, has_tables, read_tables


def folder(
    path: str,
    *,
    table: str | None = None,
    image: str = "image",
    split: str = "split",
    group: str | None = None,
    stratify: str | None = None,
    missing: tuple[str | float, ...] = MISSING,
    encoding: str = "",
    size: tuple[int, ...] | None = None,
    channels: int = 3,
    validation: float = 0.1,
    test: float = 0.2,
    seed: int = 0,
    requests: Sequence[LabelRequest],
    decoder: Decoder = "turbo",
) -> Source:
    """Folder of images with a table of labels (CSV, JSON lines or Parquet), one row per image.

    A task's label is in the column of the task's name, or in the column, the comma-separated
    columns or the COCO file (`boxes.json`) set in `data.labels`. If all labels are in COCO files,
    the table may be absent (see the source `coco`). A cell has a number, a word, several numbers,
    or a file name: PNG masks (classes as gray levels or palette indices), 16-bit PNG or npy depth
    maps, npy normals. An empty cell is a missing label. Boxes may have a row each, with the columns
    xmin,ymin,xmax,ymax,class, in the order of the task. Parquet tables may have the images in their
    cells, as Hugging Face `datasets` writes them.

    Args:
      path: Folder, relative to the working directory or `$MTLJAX_DATA`.
      table: Name of the table in the folder, or a pattern of several (`data/train-*.parquet`). May
        be omitted if there is only one, or one per split: train.csv, val.csv, test.csv, or in
        folders train, val, test.
      image: Column with the images' file names, relative to the subfolder `images` or the folder,
        with or without extension, or with the images.
      split: Column with train, validation or test; an absent split is cut from train. Without it,
        rows are split by a hash of the file name, which does not change when rows are added or
        removed.
      group: Column with the patient, scene or video of an image; all of a group are in one split or
        fold. Rows are then split by a hash of the group.
      stratify: Column with the classes that each split and fold has in proportion. Additional rows
        may then move others to another split.
      missing: Cells that are missing labels, in addition to empty ones: text, or a number such as
        -999. The name of a class is always the class.
      encoding: Encoding of a CSV or JSON lines file without a byte order mark that is not UTF-8:
        cp1252, cp1251, shift_jis, utf-16-le, ...
      size: (height, width) to resize images and labels to; if omitted, all sizes must be equal.
      channels: 3 for color, 1 for gray, or the number of bands of TIFF and npy files.
      validation, test: Share of these rows, without a split column.
      seed: Seed of the split, likewise.
    """
    opening = Opening(size, channels, validation, test, seed, decoder=decoder)
    opening.require_channels("source folder")
    root, notes = find_folder(path), NoteCounter()
    if table is None and not has_tables(root) and all(r.key.endswith(".json") for r in requests):
        return _without_table(root, opening, requests)
    files = find_tables(root, table)
    content = read_tables(list(files), encoding, notes)
    markers = MissingMarkers(missing, notes)
    finder = FileFinder(root, "images", notes)
    faults = {i: row.fault for i, row in enumerate(content.rows) if row.fault}
    images = read_images(content, image, finder, faults)
    labels = [_labels(content, images.files, root, r, markers, notes) for r in requests]
    for of_task in labels:
        faults = {**of_task.faults, **faults}
    labels, merged = merge_boxes(content, images.files, labels, requests, faults, notes)
    splits = read_splits(content, split, files, faults)
    members = _members(content, group, stratify, markers, faults)
    note_unused_images(finder, images.files, [of_task.values for of_task in labels], notes)
    note_unused_splits(content, _used_columns(image, split, requests), notes)
    columns = [labels[k].values for k, r in enumerate(requests) if not r.key.endswith(".json")]
    values = list(zip(splits, *columns, strict=True))
    kept = without_repeated(content, images.files, values, faults, notes, merged)

    examples = _examples(content, images.files, labels, members, faults, opening).at(kept)
    unnamed = "train" if any(splits) else ""
    of_row = [splits[i] or unnamed for i in kept]
    parts = opening.split([images.names[i] for i in kept], examples.members, of_row, notes)
    require_whole_groups(str(content.path), parts, examples.members)
    return source_of_files(examples, parts, notes)


def _used_columns(image: str, split: str, requests: Sequence[LabelRequest]) -> set[str]:
    """Returns the columns that are read."""
    return {image, split, *(name for r in requests for name in (r.key, *r.key.split(",")))}


def _without_table(root: Path, opening: Opening, requests: Sequence[LabelRequest]) -> Source:
    """Returns the source of a folder whose labels are all in COCO files."""
    return coco(
        str(root),
        size=opening.size,
        channels=opening.channels,
        validation=opening.validation,
        test=opening.test,
        seed=opening.seed,
        requests=requests,
        decoder=opening.decoder,
    )


def _examples(
    table: Table,
    images: Sequence[ImageFile],
    labels: Sequence[Labels],
    members: Sequence[Membership],
    faults: Mapping[int, str],
    opening: Opening,
) -> FileExamples:
    """Returns the examples of all rows, with the places of the faults."""
    examples = FileExamples(
        table=table.path,
        images=tuple(images),
        numbers=tuple(_number(table, i) for i in range(len(table.rows))),
        columns=tuple(of_task.values for of_task in labels),
        tasks=tuple(of_task.task for of_task in labels),
        channels=opening.channels,
        size=read_size(opening.size, "folder"),
        members=tuple(members),
        decoder=opening.decoder,
    )
    unusable = {i: f"{examples.place(i)}: {fault}" for i, fault in faults.items()}
    return dataclasses.replace(examples, unusable=unusable)


def _number(table: Table, index: int) -> int | str:
    """Returns the number of a row, with its file if the table has several."""
    row = table.rows[index]
    if row.file == table.path:
        return row.number
    return f"{row.number} of {row.file.relative_to(table.path).as_posix()}"


def _members(
    table: Table,
    group: str | None,
    stratify: str | None,
    markers: MissingMarkers,
    faults: Mapping[int, str],
) -> list[Membership]:
    """Returns group and stratum of each row; a row with a fault is a separate group."""
    usable = [i for i in range(len(table.rows)) if i not in faults]
    rows = [markers.without(table.rows[i], (group, stratify)) for i in usable]
    members = [Membership(f"\0{i}" if group else "") for i in range(len(table.rows))]
    memberships = members_of_table(str(table.path), rows, group, stratify)
    for i, member in zip(usable, memberships, strict=True):
        members[i] = member
    return members


def _labels(
    table: Table,
    images: Sequence[ImageFile],
    root: Path,
    request: LabelRequest,
    markers: MissingMarkers,
    notes: NoteCounter,
) -> Labels:
    """Returns the task's raw label of each row, of columns or a COCO file."""
    if not request.key.endswith(".json"):
        return read_labels(table, request, root, markers, notes)
    names = [_relative(root, image) for image in images]
    return Labels(*read_column(root / request.key, request.task, names, notes))


def _relative(root: Path, image: ImageFile) -> str:
    """Returns an image's path in the subfolder `images`, or else in the folder."""
    if not isinstance(image, Path):
        return image.name
    for folder in (root / "images", root):
        if image.is_relative_to(folder):
            return image.relative_to(folder).as_posix()
    return image.as_posix()
