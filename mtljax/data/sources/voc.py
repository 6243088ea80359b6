"""Source of images in the layout of Pascal VOC."""

import dataclasses
from collections.abc import Collection, Sequence
from pathlib import Path

from mtljax.data.annotations.base import AnnotatedImage, AnnotationSet
from mtljax.data.annotations.labels import with_categories
from mtljax.data.annotations.matching import normalized_path
from mtljax.data.annotations.voc import read_image_set, read_voc_file
from mtljax.data.base import LabelRequest, Source
from mtljax.data.files.images import FILES, image_size
from mtljax.data.files.jpeg import Decoder
from mtljax.data.layouts import (
    SPLITS,
    Pairs,
    folder_split,
    is_file,
    pair,
    path_key,
    relative_name,
    walk,
)
from mtljax.data.notes import NoteCounter
from mtljax.data.sources.arguments import find_folder
from mtljax.data.sources.entries import (
    Entry,
    Opening,
    annotated_entries,
    annotated_images,
    check_requests,
    drop_unlabelled,
    without_labels,
)
from mtljax.tasks import Segmentation
from mtljax.utils.text import error_prefix, listed

FOLDERS = frozenset(
    {"jpegimages", "images", "annotations", "annotation", "xmls", "labels", "segmentationclass"}
)
"""Names of folders, in lower case, by which images and labels with equal paths are separated."""
MASKS = "segmentationclass"
"""Folder of the masks, in lower case."""
ALL_MASKS = {MASKS, "segmentationobject", "segmentationclassaug"}
"""Names of folders of masks, in lower case; of the first, masks are read."""
LISTS = ("train.txt", "val.txt", "test.txt", "trainval.txt")
"""Lists in ImageSets; trainval is read only without train and val."""
EXPECTED = "JPEGImages/1.jpg with Annotations/1.xml, or 1.jpg with 1.xml"
"""Layout of the folder, for messages."""


def voc(
    path: str,
    *,
    image_set: str | None = None,
    difficult: bool = True,
    first: int = 1,
    size: tuple[int, ...] | None = None,
    channels: int = 3,
    validation: float = 0.1,
    test: float = 0.2,
    seed: int = 0,
    group: str | None = None,
    requests: Sequence[LabelRequest],
    decoder: Decoder = "turbo",
) -> Source:
    """Images with Pascal VOC XML files: boxes, classes and masks.

    Reads JPEGImages with Annotations and SegmentationClass, images with annotations, or images and
    XML files in one folder. Splits are the lists in ImageSets (train, val or trainval, test), or
    folders of splits. Each task reads the label of its kind: boxes (Detection), classes
    (MultiLabel) or masks (Segmentation: palette indices, 255 without a class). Classes are the
    names in the files, in alphabetical order, or the `class_names` of the task, a part of them.

    Args:
      path: Folder, relative to the working directory or `$MTLJAX_DATA`.
      image_set: Folder in ImageSets: Main, or, if only masks are read, Segmentation.
      difficult: True to read also objects that are marked as difficult.
      first: Number of the first pixel: 1 as in VOC, whose boxes include xmax and ymax, or 0 for
        files in which boxes are edges that count from 0.
      size: (height, width) to resize images and labels to; if omitted, all sizes must be equal.
      channels: 3 for color, 1 for gray, or the number of bands of TIFF and npy files.
      validation, test: Share of the images of a split that the data set lacks, by a hash of the
        file name.
      seed: Seed of this selection.
      group: Regular expression of the part of a file name that the images of a scene or video
        share, such as 'video[0-9]+'; they are in one split or fold.
    """
    opening, notes = Opening(size, channels, validation, test, seed, group, decoder), NoteCounter()
    check_requests("source voc", requests, absent=["keypoints"])
    if first not in (0, 1):
        raise ValueError(f"source voc: first must be 0 or 1, not {first}")
    root, tasks = find_folder(path), [request.task for request in requests]
    are_masks = [isinstance(task, Segmentation) for task in tasks]
    files = list(walk(root))
    images = [file for file in files if _is_image(file) and not _inside(root, file, ALL_MASKS)]
    if not images:
        raise ValueError(f"{root} has no images; expected {EXPECTED}")
    image_set = image_set or ("Segmentation" if all(are_masks) else "Main")
    splits = _splits(root, files, images, image_set)
    present = [image for image in splits if is_file(image)]
    masks = [file for file in files if _is_image(file) and _inside(root, file, (MASKS,))]
    pairs = {
        "a mask": pair(root, present, masks if any(are_masks) else [], FOLDERS, notes),
        "an XML file": pair(root, present, [] if all(are_masks) else _xml(files), FOLDERS, notes),
    }
    labeled = {image for found in pairs.values() for image, inside in found.files.items() if inside}
    splits, unusable = without_labels(root, splits, labeled, f"expected {EXPECTED}", notes)
    for what, is_read in (("a mask", any(are_masks)), ("an XML file", not all(are_masks))):
        _note_unpaired(pairs[what], splits, what if is_read else "", notes)
    objects = _read(root, pairs["an XML file"], list(splits), (first, difficult), notes)
    names = sorted(objects.categories)
    for i, task in enumerate(tasks):
        if not are_masks[i]:
            tasks[i], absent = with_categories(task, names, root)
            notes.add("warning", absent, count=bool(absent))
    by_name = {relative_name(root, image): image for image in splits}
    entries = annotated_entries(
        [None if is_mask else objects for is_mask in are_masks],
        tasks,
        by_name,
        {name: splits[image] for name, image in by_name.items()},
        notes,
    )
    entries = [_with_mask(entry, are_masks, pairs["a mask"]) for entry in entries]
    return opening.source(root, drop_unlabelled(entries, notes), tasks, notes, unusable)


def _is_image(file: Path) -> bool:
    return file.suffix.lower() in FILES


def _xml(files: Sequence[Path]) -> list[Path]:
    return [file for file in files if file.suffix.lower() == ".xml"]


def _inside(root: Path, file: Path, folders: Collection[str]) -> bool:
    return any(part.lower() in folders for part in file.relative_to(root).parts[:-1])


def _splits(
    root: Path, files: Sequence[Path], images: Sequence[Path], image_set: str
) -> dict[Path, str | None]:
    """Returns the split of each image, by the lists in ImageSets or else by folders."""
    lists = [f for f in files if len(f.parts) > 3 and f.parts[-3].lower() == "imagesets"]
    if not lists:
        return {image: folder_split(root, image) for image in images}
    selected = [f for f in lists if f.parent.name == image_set and f.name in LISTS]
    if not any(file.stem in ("train", "trainval") for file in selected):
        names = listed(sorted({file.parent.name for file in lists}))
        raise ValueError(
            f"{root}: ImageSets/{image_set} has no train.txt or trainval.txt; image_set=NAME "
            f"selects another folder of {names}"
        )
    splits: dict[Path, str | None] = dict.fromkeys(images)
    by_base: dict[Path, list[Path]] = {}
    for file in selected:
        by_base.setdefault(file.parents[2], []).append(file)
    for base, lists_of in by_base.items():
        stems = {file.stem for file in lists_of}
        inside = [image for image in images if image.is_relative_to(base)]
        by_key = {path_key(base, image, FOLDERS): image for image in inside}
        for file in lists_of:
            if file.stem == "trainval" and {"train", "val"} & stems:
                continue
            for name in read_image_set(file):
                image = by_key.get(_listed_key(name))
                image = image or base / "JPEGImages" / f"{name.removesuffix('.jpg')}.jpg"
                split = SPLITS[file.stem]
                if splits.get(image) not in (None, split):
                    raise ValueError(f"{file}: {name} is in the {splits[image]} split too")
                splits[image] = split
    return splits


def _listed_key(name: str) -> tuple[str, ...]:
    """Returns the key, as `path_key` does, of a name in a list, with or without its extension."""
    *folders, last = normalized_path(name).split("/")
    stem = last.rpartition(".")[0] if last.lower().endswith(FILES) else last
    return (*(folder for folder in folders if folder.lower() not in FOLDERS), stem)


def _note_unpaired(pairs: Pairs, images: Collection[Path], what: str, notes: NoteCounter) -> None:
    """Counts files without an image, and images without a file."""
    for file in pairs.unmatched:
        notes.add(
            "unmatched", f"files with labels ({file.suffix.lower()}) without an image", str(file)
        )
    for image, files in pairs.files.items():
        if what and image in images and not files:
            notes.add("missing", f"labels: images without {what}", str(image))


def _read(
    root: Path,
    pairs: Pairs,
    images: Sequence[Path],
    arguments: tuple[int, bool],
    notes: NoteCounter,
) -> AnnotationSet:
    """Returns the objects of the images that have an XML file."""

    def read(image: Path, files: Sequence[Path]) -> AnnotatedImage | None:
        if not files:
            return None
        pairs.require_unique(image)
        objects = read_voc_file(files[0], *arguments, notes)
        with error_prefix(image):
            size = objects.size or image_size(image)
        return AnnotatedImage(size, objects.annotations, str(files[0]))

    annotated, faults = annotated_images(root, images, pairs, read)
    names = {a["category_id"] for image in annotated.values() for a in image.annotations}
    categories = {name: name for name in names}
    return AnnotationSet(root, annotated, categories, faults=faults, noun="object")


def _with_mask(entry: Entry, are_masks: Sequence[bool], pairs: Pairs) -> Entry:
    """Returns the entry with the mask of its image as the label of tasks with masks."""
    masks = pairs.files.get(entry.image, [])
    if not (any(are_masks) and masks):
        return entry
    try:
        pairs.require_unique(entry.image)
    except ValueError as error:
        return dataclasses.replace(entry, fault=entry.fault or str(error))
    values = [
        masks[0] if is_mask else value
        for value, is_mask in zip(entry.values, are_masks, strict=True)
    ]
    return dataclasses.replace(entry, values=tuple(values))
