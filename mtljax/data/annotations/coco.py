"""Reader of COCO annotation files."""

import collections
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mtljax.data.annotations.base import AnnotatedImage, Annotation, AnnotationSet
from mtljax.data.annotations.labels import read_labels, with_categories
from mtljax.data.annotations.matching import match_images, normalized_path
from mtljax.data.notes import NoteCounter
from mtljax.tasks import Task
from mtljax.tasks.warps import Pixels
from mtljax.utils.bounded_reading import read_text
from mtljax.utils.text import first_line, normalized, shortened


def read_coco(path: Path, notes: NoteCounter) -> AnnotationSet:
    """Reads a COCO file; `notes` counts annotations and entries that are left out.

    Raises:
      ValueError: The file is not a COCO file. An invalid image or annotation is a fault of its
        image only.
    """
    content = _load(path)
    categories, keypoints = _read_categories(path, content["categories"], notes)
    faults: dict[str, str] = {}
    names, sizes = _read_images(path, content["images"], faults, notes)
    annotations: dict[Any, list[Annotation]] = {image: [] for image in names}
    for position, annotation in enumerate(content["annotations"]):
        image = annotation.get("image_id") if isinstance(annotation, dict) else None
        if _is_key(image) and image in annotations:
            annotations[image].append({"id": position, **annotation})
        else:
            place = f"{path} annotation {position}"
            notes.add("dropped", "annotations of images that the file does not list", place)
    if content["annotations"] and not any(annotations.values()):
        raise ValueError(
            f"{path}: no annotation has the id of an image as image_id; are both numbers?"
        )
    used = {str(a.get("category_id")) for found in annotations.values() for a in found}
    for key in _parents(content["categories"], categories):
        if str(key) not in used:
            name = shortened(categories.pop(key))
            what = f"categories without annotations that only group others: {name!r}"
            notes.add("dropped", what, str(path))
    images = _merge(path, names, sizes, annotations, faults, notes)
    return AnnotationSet(path, images, categories, keypoints, faults)


def read_column(
    path: Path, task: Task, images: Sequence[str], notes: NoteCounter
) -> tuple[Task, tuple[Any, ...], dict[int, str]]:
    """Reads the labels of the images of a table from a COCO file.

    Args:
      images: Relative path of each row's image.

    Returns:
      The task, with the classes of the file; the raw label of each row; and the rows with invalid
      annotations: {row: message}.
    """
    annotations = read_coco(path, notes)
    if not annotations.has_objects:
        raise ValueError(f"{path} has no annotations")
    task, absent = with_categories(task, annotations.class_names, path)
    if absent:
        raise ValueError(absent)
    labels = read_labels(annotations, task, notes)
    names = match_images(path, annotations.images, images, notes)
    column = tuple(None if name is None else labels.values.get(name) for name in names)
    faults = {i: labels.faults[name] for i, name in enumerate(names) if name in labels.faults}
    return task, column, faults


def _load(path: Path) -> Mapping[str, list]:
    try:
        content = json.loads(read_text(path).removeprefix("\ufeff"))
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is not a COCO file: {first_line(error)}") from None
    content = content if isinstance(content, dict) else {}
    content = {"annotations": [], **content}  # files of unlabelled images have no such list
    for part in ("images", "annotations", "categories"):
        if not isinstance(content.get(part), list):
            raise ValueError(f"{path} is not a COCO file: it has no list {part!r}")
    return content


def _is_key(value: Any) -> bool:
    """Returns True for an id: a number or a text."""
    return isinstance(value, (int, float, str)) and not isinstance(value, bool)


def _read_categories(
    path: Path, entries: Sequence[Any], notes: NoteCounter
) -> tuple[dict[Any, str], tuple[str, ...]]:
    """Returns the names by id, and the names of the keypoints."""
    categories: dict[Any, str] = {}
    keypoints: dict[tuple[str, ...], None] = {}
    for position, entry in enumerate(entries):
        key, name = (
            entry.get(part) if isinstance(entry, dict) else None for part in ("id", "name")
        )
        if not _is_key(key) or not isinstance(name, (str, int)) or not str(name).strip():
            raise ValueError(f"{path} category {position}: must have an id and a name")
        if categories.setdefault(key, normalized(str(name))) != normalized(str(name)):
            raise ValueError(f"{path}: two categories have the id {_short(key)}")
        points = entry.get("keypoints")
        if isinstance(points, list) and points:
            keypoints[tuple(map(str, points))] = None
    if len(keypoints) > 1:
        raise ValueError(f"{path}: categories have different keypoints; must be the same for all")
    by_id = {key: categories[key] for key in sorted(categories, key=_order)}
    for name, count in collections.Counter(by_id.values()).items():
        if count > 1:
            what = f"{count} categories have the name {shortened(name)!r} and are one class"
            notes.add("warning", f"{path.name}: {what}")
    return by_id, next(iter(keypoints), ())


def _parents(entries: Sequence[Any], categories: Mapping[Any, str]) -> list[Any]:
    """Returns the ids of categories that are the `supercategory` of another, as Roboflow has."""
    groups = {
        normalized(entry["supercategory"])
        for entry in entries
        if isinstance(entry.get("supercategory"), str)
        and normalized(entry["supercategory"]) != normalized(str(entry["name"]))
    }
    return [key for key, name in categories.items() if name in groups]


def _short(key: Any) -> str:
    return shortened(repr(key), 40)


def _order(key: Any) -> tuple[bool, Any]:
    return isinstance(key, str), key


def _read_images(
    path: Path, entries: Sequence[Any], faults: dict[str, str], notes: NoteCounter
) -> tuple[dict[Any, str], dict[Any, Pixels]]:
    """Returns the file names and the sizes by id."""
    names: dict[Any, str] = {}
    sizes: dict[Any, Pixels] = {}
    for position, entry in enumerate(entries):
        entry = entry if isinstance(entry, dict) else {}
        key, name = entry.get("id"), entry.get("file_name")
        if not _is_key(key) or not isinstance(name, str) or not name.strip():
            what = "image entries without an id and a file_name"
            notes.add("dropped", what, f"{path} image {position}")
            continue
        name, size = normalized_path(name), (1, 1)
        if not _is_file_name(name):
            what = "image entries whose file_name cannot be that of a file"
            notes.add("dropped", what, f"{path} image {position}")
            continue
        if _is_length(entry.get("height")) and _is_length(entry.get("width")):
            size = int(entry["height"]), int(entry["width"])
        else:
            faults[name] = f"{path} image {name}: must have height and width in pixels"
        if key in names and (names[key], sizes[key]) != (name, size):
            for other in (names[key], name):
                faults[other] = f"{path} image {other}: two images have the id {_short(key)}"
        names[key], sizes[key] = name, size
    return names, sizes


def _is_file_name(name: str) -> bool:
    return name.isprintable() and all(len(part.encode()) < 256 for part in name.split("/"))


def _is_length(value: Any) -> bool:
    return isinstance(value, (int, float)) and 1 <= value <= 2**31 and value == int(value)


def _merge(
    path: Path,
    names: Mapping[Any, str],
    sizes: Mapping[Any, Pixels],
    annotations: Mapping[Any, Sequence[Annotation]],
    faults: dict[str, str],
    notes: NoteCounter,
) -> dict[str, AnnotatedImage]:
    """Returns the images by file name; entries that repeat one are dropped if they are equal."""
    keys: dict[str, list[Any]] = {}
    for key, name in names.items():
        keys.setdefault(name, []).append(key)
    images: dict[str, AnnotatedImage] = {}
    for name, (first, *others) in keys.items():
        place = f"{path} image {name}"
        images[name] = AnnotatedImage(sizes[first], tuple(annotations[first]), place)
        for other in others:
            if sizes[other] != sizes[first] or not _same(annotations[first], annotations[other]):
                ids = f"{_short(first)} and {_short(other)}"
                faults[name] = (
                    f"{place}: two entries, with the ids {ids}, have this file_name, but different "
                    "annotations; correct one"
                )
            else:
                notes.add("dropped", "repeated entries of an image, with equal annotations", place)
    return images


def _same(a: Sequence[Annotation], b: Sequence[Annotation]) -> bool:
    """Returns True if annotations are equal except for their ids."""

    def contents(annotations: Sequence[Annotation]) -> list[str]:
        own = ("id", "image_id")
        kept = [{k: v for k, v in part.items() if k not in own} for part in annotations]
        return sorted(json.dumps(part, sort_keys=True) for part in kept)

    return contents(a) == contents(b)
