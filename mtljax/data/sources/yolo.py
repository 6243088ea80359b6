"""Source of images with YOLO label files."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from mtljax.data.annotations.base import AnnotatedImage, AnnotationSet
from mtljax.data.annotations.labels import with_categories
from mtljax.data.annotations.yolo import YoloFile, read_label_file, read_lines, read_yolo_file
from mtljax.data.annotations.yolo_splits import find_splits
from mtljax.data.base import LabelRequest, Source
from mtljax.data.files.images import FILES, image_size
from mtljax.data.files.jpeg import Decoder
from mtljax.data.layouts import SPLITS, folder_split, is_file, pair, relative_name, walk
from mtljax.data.notes import NoteCounter
from mtljax.data.sources.arguments import find_folder
from mtljax.data.sources.entries import (
    Opening,
    annotated_entries,
    annotated_images,
    check_requests,
    drop_unlabelled,
    without_labels,
)
from mtljax.tasks import Segmentation, Task
from mtljax.utils.text import error_prefix, listed

FOLDERS = frozenset({"images", "labels", "jpegimages"})
"""Names of folders, in lower case, by which images and labels with equal paths are separated."""
OTHER_TEXTS = {"license.txt", "requirements.txt", "notes.txt", *(f"{name}.txt" for name in SPLITS)}
"""Names of text files that are no label files, as well as README*.txt."""
NAME_FILES = ("classes.txt", "obj.names", "_darknet.labels", "predefined_classes.txt")
"""Names of files that list the classes, in lower case."""
EXPECTED = "images/train/1.jpg with labels/train/1.txt, train/images with train/labels, or 1.txt"
"""Layout of the folder, for messages."""


def yolo(
    path: str,
    *,
    size: tuple[int, ...] | None = None,
    channels: int = 3,
    validation: float = 0.1,
    test: float = 0.2,
    seed: int = 0,
    group: str | None = None,
    requests: Sequence[LabelRequest],
    decoder: Decoder = "turbo",
) -> Source:
    """Images with YOLO label files (Ultralytics, Darknet): boxes, masks, keypoints and classes.

    Reads images/train/*.jpg with labels/train/*.txt, train/images with train/labels (Roboflow),
    images with labels, or images and text files in one folder. Splits are those of data.yaml, or
    folders of splits. Each task reads the label of its kind: boxes (Detection; of polygons, the box
    around them), masks (Segmentation, of polygons; class 0 is the background), keypoints
    (Keypoints; images with one object only) or classes (MultiLabel). An image without a text file
    has no objects. Class names are those of data.yaml or classes.txt.

    Args:
      path: Folder, or its data.yaml, relative to the working directory or `$MTLJAX_DATA`.
      size: (height, width) to resize images and labels to; if omitted, all sizes must be equal.
      channels: 3 for color, 1 for gray, or the number of bands of TIFF and npy files.
      validation, test: Share of the images of a split that the data set lacks, by a hash of the
        file name.
      seed: Seed of this selection.
      group: Regular expression of the part of a file name that the images of a scene or video
        share, such as 'video[0-9]+'; they are in one split or fold.
    """
    opening, notes = Opening(size, channels, validation, test, seed, group, decoder), NoteCounter()
    check_requests("source yolo", requests)
    root, config = _find_config(path)
    files = list(walk(root))
    images = [file for file in files if file.suffix.lower() in FILES]
    if not images:
        raise ValueError(f"{root} has no images; expected {EXPECTED} beside 1.jpg")
    if not config.names:
        config = dataclasses.replace(config, names=_read_name_file(root, files))
    splits = find_splits(root, images, config, notes)
    if not splits:
        splits = {image: folder_split(root, image) for image in images}
    annotations, labeled = _read(root, files, list(splits), config, notes)
    expected = f"expected {EXPECTED} beside 1.jpg"
    splits, unusable = without_labels(root, splits, labeled, expected, notes)
    for image in splits:
        if image not in labeled:
            what = "images without a label file to images without objects"
            notes.add("converted", what, str(image))
    tasks = [request.task for request in requests]
    names = config.names or _numbers(root, annotations, tasks, notes)
    annotations = dataclasses.replace(annotations, categories=dict(enumerate(names)))
    for i, task in enumerate(tasks):
        tasks[i], absent = with_categories(task, names, root)
        unusable |= {"train": absent} if absent else {}
    by_name = {relative_name(root, image): image for image in splits}
    in_split = {name: splits[image] for name, image in by_name.items()}
    entries = annotated_entries([annotations] * len(tasks), tasks, by_name, in_split, notes)
    return opening.source(root, drop_unlabelled(entries, notes), tasks, notes, unusable)


def _find_config(path: str) -> tuple[Path, YoloFile]:
    """Returns the folder and its data.yaml; an empty one if there is none."""
    if path.lower().endswith((".yaml", ".yml")):
        root = find_folder(str(Path(path).parent))
        return root, read_yolo_file(root / Path(path).name)
    root = find_folder(path)
    files = [f for f in sorted(root.iterdir()) if f.suffix.lower() in (".yaml", ".yml")]
    named = [file for file in files if file.stem == "data"] or files
    if len(named) > 1:
        names = listed(file.name for file in named)
        raise ValueError(f"{root} has several YAML files ({names}): select one by yolo:PATH/NAME")
    return root, read_yolo_file(named[0]) if named else YoloFile(root)


def _read_name_file(root: Path, files: Sequence[Path]) -> tuple[str, ...]:
    """Returns the class names of the text files that list them, () without one."""
    names_in = {file: read_lines(file) for file in files if file.name.lower() in NAME_FILES}
    if len(set(names_in.values())) > 1:
        names = listed(str(file.relative_to(root)) for file in names_in)
        raise ValueError(f"{root} has several lists of class names ({names}) that differ")
    return next(iter(names_in.values()), ())


def _numbers(
    root: Path, annotations: AnnotationSet, tasks: Sequence[Task], notes: NoteCounter
) -> tuple[str, ...]:
    """Returns the names of classes that the data set does not name: those of a task, or indices."""
    is_background = [isinstance(task, Segmentation) for task in tasks]
    for task, extra in zip(tasks, is_background, strict=True):
        if names := getattr(task, "class_names", ()):
            return names[extra:]
    indices = [a["category_id"] for i in annotations.images.values() for a in i.annotations]
    declared = [
        getattr(task, "num_classes", 0) - extra
        for task, extra in zip(tasks, is_background, strict=True)
    ]
    notes.add("warning", f"{root} has no data.yaml or classes.txt: classes are named by number")
    return tuple(map(str, range(max([*declared, *(index + 1 for index in indices)]))))


def _read(
    root: Path,
    files: Sequence[Path],
    images: Sequence[Path],
    config: YoloFile,
    notes: NoteCounter,
) -> tuple[AnnotationSet, set[Path]]:
    """Returns the annotations of all images, and the images with a label file."""
    lists = {Path(entry).name for entries in config.splits.values() for entry in entries}
    texts = [
        file
        for file in files
        if file.suffix.lower() == ".txt" and _may_be_labels(file) and file.name not in lists
    ]
    pairs = pair(root, [image for image in images if is_file(image)], texts, FOLDERS, notes)
    for file in pairs.unmatched:
        notes.add("unmatched", "label files without an image", str(file))

    def read(image: Path, labels: Sequence[Path]) -> AnnotatedImage:
        pairs.require_unique(image)
        with error_prefix(image):
            size = image_size(image)
        if not labels:
            return AnnotatedImage(size, (), str(image))
        return read_label_file(labels[0], size, config.points, notes)

    annotated, faults = annotated_images(root, images, pairs, read)
    labeled = {image for image, labels in pairs.files.items() if labels}
    return AnnotationSet(root, annotated, {}, faults=faults, noun="line"), labeled


def _may_be_labels(file: Path) -> bool:
    name = file.name.lower()
    return name not in NAME_FILES and name not in OTHER_TEXTS and not name.startswith("readme")
