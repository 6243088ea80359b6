"""Labels of tasks in COCO files: boxes, keypoints, masks, and the categories of an image."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from mtljax.data.boxes import BoxList, finite
from mtljax.data.coco_file import Annotation, CocoFile, CocoImage
from mtljax.data.coco_masks import UNKNOWN, StoredMask, read_region
from mtljax.data.notes import NoteCounter
from mtljax.tasks import Detection, Keypoints, MultiLabel, Segmentation, Task
from mtljax.tasks.warps import Pixels
from mtljax.utils.optional import require_installed
from mtljax.utils.registry import nearest

BACKGROUND = "background"
"""Class 0 of masks: pixels of no object."""
KINDS = {Detection: "boxes", Keypoints: "keypoints", Segmentation: "masks", MultiLabel: "classes"}
"""Kind of task -> name of its label in annotation files."""


class Labels(NamedTuple):
    """Raw labels of a task in one file, by the file name of the image."""

    values: dict[str, Any]
    """Raw label; None if the image has none."""
    faults: dict[str, str]
    """Reason why the labels of an image cannot be used."""


def label_name(place: object, task: Task, possible: Sequence[str]) -> str:
    """Returns the label that a task reads from annotation files, by its kind.

    Raises:
      ValueError: It is none of the possible ones.
    """
    kind = next((name for kind, name in KINDS.items() if isinstance(task, kind)), None)
    if kind not in possible:
        kinds = {name: kind.__name__ for kind, name in KINDS.items()}
        listed = ", ".join(f"{name} ({kinds[name]})" for name in possible)
        raise ValueError(
            f"{place} has no label for task {task.name!r}, a {type(task).__name__}; it has {listed}"
        )
    return str(kind)


def with_categories(task: Task, names: Sequence[str], place: object) -> Task:
    """Returns the task with the classes of annotation files, unless it has `class_names`.

    The masks of `Segmentation` have the additional class 0, the background.

    Raises:
      ValueError: A requested class does not exist, or the number of classes is another one.
    """
    if isinstance(task, Segmentation):
        names = (BACKGROUND, *(name for name in names if name != BACKGROUND))
    for name in getattr(task, "class_names", ()):
        if name not in names:
            raise ValueError(
                f"{place} has no category {name!r}, which is in class_names of task "
                f"{task.name!r}{nearest(name, names)}"
            )
    return task.with_classes(names)


def read_labels(file: CocoFile, task: Task, notes: NoteCounter) -> Labels:
    """Returns the labels of a task whose classes are set; see `with_categories`.

    Boxes are clipped to their image. Boxes without area, crowd regions (`iscrowd`), which mark many
    objects at once, and objects of other categories are dropped; `notes` counts all.
    """
    kind = label_name(file.path, task, list(KINDS.values()))
    read: Any = {
        "boxes": _boxes,
        "keypoints": _keypoints,
        "masks": _mask,
        "classes": _categories,
    }[kind]
    if isinstance(task, Keypoints):
        _require_points(file, task)
    if isinstance(task, Segmentation):
        if task.first or task.values or task.colors:
            raise ValueError(
                f"{file.path}: leave out first, values and colors of task {task.name!r}; classes "
                "are the names of the categories"
            )
        require_installed("pycocotools", "detection", f"task {task.name!r}")
    labels = Labels({}, dict(file.faults))
    for name, image in file.images.items():
        if name in labels.faults:
            continue
        try:
            labels.values[name] = read(file, name, image, task, notes)
        except ValueError as error:
            labels.faults[name] = f"{file.path} image {name}: {error}"
    return labels


def _place(file: CocoFile, name: str, annotation: Annotation) -> str:
    return f"{file.path} image {name}, annotation {annotation.get('id', '')}".rstrip()


def _category(file: CocoFile, annotation: Annotation) -> str:
    key = annotation.get("category_id")
    if not isinstance(key, (int, float, str)) or key not in file.categories:
        raise ValueError(f"annotation {annotation.get('id')}: unknown category {key!r}"[:200])
    return file.categories[key]


def _objects(
    file: CocoFile, name: str, image: CocoImage, task: Task, notes: NoteCounter
) -> list[tuple[str, Annotation]]:
    """Returns the category and annotation of each single object of a requested category."""
    wanted = getattr(task, "class_names", ())
    found = []
    for annotation in image.annotations:
        category = _category(file, annotation)
        if wanted and category not in wanted:
            place = _place(file, name, annotation)
            notes.add("dropped", f"boxes of category {category!r}", place)
        elif annotation.get("iscrowd"):
            notes.add("dropped", "crowd regions (iscrowd = 1)", _place(file, name, annotation))
        else:
            found.append((category, annotation))
    return found


def _boxes(
    file: CocoFile, name: str, image: CocoImage, task: Task, notes: NoteCounter
) -> Mapping[str, Any]:
    boxes = BoxList(image.size, (), notes)
    for category, annotation in _objects(file, name, image, task, notes):
        box = annotation.get("bbox")
        if not isinstance(box, list) or len(box) != 4:
            raise ValueError(f"{_which(annotation)}: must have bbox [x, y, width, height]")
        try:
            x, y, width, height = finite(box)
        except ValueError as error:
            raise ValueError(f"{_which(annotation)}: bbox {error}") from None
        if width < 0 or height < 0:
            raise ValueError(f"{_which(annotation)}: bbox must have no negative size")
        boxes.add((y, x, y + height, x + width), category, _place(file, name, annotation))
    return boxes.label()


def _which(annotation: Annotation) -> str:
    return f"annotation {annotation.get('id', '')}".rstrip()[:60]


def _categories(
    file: CocoFile, name: str, image: CocoImage, task: Task, notes: NoteCounter
) -> list[float]:
    """Returns 1 for each class of which the image has an object or a crowd, else `negative`."""
    assert isinstance(task, MultiLabel)
    present = {_category(file, annotation) for annotation in image.annotations}
    for category in sorted(present - set(task.class_names)):
        notes.add("dropped", f"occurrences of category {category!r}", f"{file.path} image {name}")
    return [1.0 if name in present else float(task.negative) for name in task.class_names]


def _require_points(file: CocoFile, task: Keypoints) -> None:
    count = len(file.keypoints)
    if count not in (0, task.num_keypoints):
        raise ValueError(
            f"{file.path} has {count} keypoints per object, but task {task.name!r} has "
            f"num_keypoints={task.num_keypoints}"
        )


def _keypoints(
    file: CocoFile, name: str, image: CocoImage, task: Task, notes: NoteCounter
) -> list[float] | None:
    """Returns the points of the only object, None if there is another number of objects.

    A task has one set of points per image, so that the points of one of several objects would be
    ambiguous. Crowd regions count as objects.
    """
    assert isinstance(task, Keypoints)
    place = f"{file.path} image {name}"
    kinds = {a.get("category_id") for a in image.annotations if "keypoints" in a}
    found = [a for a in image.annotations if a.get("category_id") in kinds]
    if len(found) != 1 or found[0].get("iscrowd"):
        number = "several objects (one set of points per image)" if found else "no object"
        notes.add("missing", f"labels: images with {number}", place)
        return None
    (annotation,) = found
    values = annotation.get("keypoints")
    if not isinstance(values, list) or len(values) != 3 * task.num_keypoints:
        raise ValueError(
            f"{_which(annotation)}: must have x, y, v of {task.num_keypoints} keypoints"
        )
    try:
        points = np.asarray(finite(values)).reshape(-1, 3)
    except ValueError as error:
        raise ValueError(f"{_which(annotation)}: keypoints {error}") from None
    return points_label(points, image.size, task, place, notes)


def points_label(
    points: Float[np.ndarray, "K 3"], size: Pixels, task: Keypoints, place: str, notes: NoteCounter
) -> list[float] | None:
    """Returns points (x, y, v) in the order that the task parses; None if none is labelled.

    In `v`, 0 is not labelled; 1, labelled but occluded, and 2, visible, are both labelled.
    """
    if not (points[:, 2] > 0).any():
        notes.add("missing", "labels: objects without a labelled point", place)
        return None
    order = [0, 1, 2] if getattr(task, "order", "yx") == "xy" else [1, 0, 2]
    labelled = points[:, order]
    labelled[:, 2] = labelled[:, 2] > 0
    return labelled.ravel().tolist()


def _mask(
    file: CocoFile, name: str, image: CocoImage, task: Task, notes: NoteCounter
) -> StoredMask:
    """Returns the mask of all objects; pixels of crowd regions have no class."""
    assert isinstance(task, Segmentation)
    names, unknown = task.class_names, -1 if task.ignore is None else task.ignore
    regions = []
    for annotation in image.annotations:
        category, place = _category(file, annotation), _place(file, name, annotation)
        if category not in names:
            notes.add("dropped", f"masks of category {category!r}", place)
            continue
        index = names.index(category)
        if annotation.get("iscrowd"):
            what = "pixels of crowd regions (iscrowd = 1) to pixels without a class: regions"
            notes.add("converted", what, place)
            index = UNKNOWN
        try:
            regions.append(read_region(index, annotation.get("segmentation"), image.size))
        except ValueError as error:
            raise ValueError(f"{_which(annotation)}: {error}") from None
    background = names.index(BACKGROUND) if BACKGROUND in names else unknown
    return StoredMask(image.size, tuple(regions), background, unknown)
