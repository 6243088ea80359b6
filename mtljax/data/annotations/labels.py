"""Labels of tasks in annotations: boxes, keypoints, masks, and the classes in an image."""

import dataclasses
from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from mtljax.data.annotations.base import AnnotatedImage, Annotation, AnnotationSet
from mtljax.data.annotations.boxes import Boxes, BoxList, finite
from mtljax.data.annotations.masks import UNKNOWN, StoredMask, read_region
from mtljax.data.class_names import (
    OtherClasses,
    absent_class,
    note_similar_classes,
    requested_names,
)
from mtljax.data.notes import NoteCounter
from mtljax.tasks import Detection, Keypoints, MultiLabel, Segmentation, Task
from mtljax.utils.optional import require_installed
from mtljax.utils.text import error_prefix

BACKGROUND = "background"
"""Class 0 of masks: pixels of no object."""
MIN_BOXES = 5
"""Number of boxes below which their order is not judged."""
KINDS = {Detection: "boxes", Keypoints: "keypoints", Segmentation: "masks", MultiLabel: "classes"}
"""Kind of task -> name of its label in annotations."""


class Labels(NamedTuple):
    """Raw labels of a task, by the file name of the image."""

    values: dict[str, Any]
    """Raw label; None if the image has none."""
    faults: dict[str, str]
    """Reason why the labels of an image cannot be used."""


def label_name(place: object, task: Task, absent: Collection[str] = ()) -> str:
    """Returns the name of the label that a task reads from annotations, by its kind.

    Args:
      absent: Names of labels that the format does not have.

    Raises:
      ValueError: The format has no label of this kind.
    """
    kinds = {kind: name for kind, name in KINDS.items() if name not in absent}
    for kind, name in kinds.items():
        if isinstance(task, kind):
            return name
    listed = ", ".join(f"{name} ({kind.__name__})" for kind, name in kinds.items())
    raise ValueError(
        f"{place} has no label for task {task.name!r}, a {type(task).__name__}; it has {listed}"
    )


def with_categories(task: Task, names: Sequence[str], place: object) -> tuple[Task, str]:
    """Returns the task with the classes of annotations, unless it has `class_names`.

    The masks of `Segmentation` have the additional class 0, the background.

    Returns:
      The task, and a message if it requests a class that the annotations lack; see `absent_class`.
    """
    if isinstance(task, Segmentation):
        names = (BACKGROUND, *(name for name in names if name != BACKGROUND))
    absent = absent_class(place, task, names, "category")
    with error_prefix(place):
        return task.with_classes(names), absent


def read_labels(annotations: AnnotationSet, task: Task, notes: NoteCounter) -> Labels:
    """Returns the labels of a task whose classes are set; see `with_categories`.

    Boxes are clipped to their image. Boxes without area, crowd regions (`iscrowd`), which mark many
    objects at once, and objects of other categories are dropped; `notes` counts all.
    """
    kind = label_name(annotations.path, task)
    note_similar_classes(task, getattr(task, "class_names", ()), notes)
    requested = requested_names(task, [*annotations.class_names, BACKGROUND])
    reader = _Reader(annotations, task, requested, OtherClasses(), notes)
    read = {
        "boxes": reader.boxes,
        "keypoints": reader.keypoints,
        "masks": reader.mask,
        "classes": reader.classes,
    }[kind]
    _check_settings(annotations, task, notes)
    labels = Labels({}, dict(annotations.faults))
    for name, image in annotations.images.items():
        if name not in labels.faults:
            try:
                labels.values[name] = read(image)
            except ValueError as error:
                labels.faults[name] = f"{image.place}: {error}"
    if kind == "boxes":
        _require_pixels(annotations, [value["boxes"] for value in labels.values.values()])
        _require_sizes(annotations)
    noun = {"masks": "masks", "classes": "occurrences"}.get(kind, "boxes")
    reader.others.note(noun, notes)
    return labels


def _require_pixels(annotations: AnnotationSet, boxes: Sequence[Float[np.ndarray, "n 4"]]) -> None:
    """Raises ValueError if all boxes are within one pixel, as fractions of the image are."""
    values = np.concatenate([np.zeros((0, 4)), *boxes])
    if len(values) and values.max() <= 1 and (values % 1 > 0).any():
        raise ValueError(
            f"{annotations.path}: all boxes are within the first pixel; coordinates must be in "
            "pixels, not fractions of the image"
        )


def _require_sizes(annotations: AnnotationSet) -> None:
    """Raises ValueError if all boxes may be, and most can only be, x0, y0, x1, y1."""
    count = exceeding = 0
    for image in annotations.images.values():
        height, width = image.size
        for annotation in image.annotations:
            try:
                x, y, third, fourth = finite(annotation.get("bbox") or ())
            except (TypeError, ValueError):
                continue  # reported with its image, if it is used
            if not (x < third <= width + 1 and y < fourth <= height + 1):
                return
            count += 1
            exceeding += x + third > width + 1 or y + fourth > height + 1
    if count >= MIN_BOXES and exceeding > count / 2:
        raise ValueError(
            f"{annotations.path}: {exceeding} of {count} boxes exceed their image, but none does "
            "as x0, y0, x1, y1; bbox must be x, y, width, height"
        )


def _check_settings(annotations: AnnotationSet, task: Task, notes: NoteCounter) -> None:
    """Raises ValueError if a task has settings that do not fit the annotations."""
    count = len(annotations.keypoints)
    if isinstance(task, Keypoints) and count not in (0, task.num_keypoints):
        raise ValueError(
            f"{annotations.path} has {count} keypoints per object, but task {task.name!r} has "
            f"num_keypoints={task.num_keypoints}"
        )
    if isinstance(task, Segmentation):
        if task.first or task.values or task.colors:
            raise ValueError(
                f"{annotations.path}: leave out first, values and colors of task {task.name!r}; "
                "the classes are the names of the categories"
            )
        require_installed("pycocotools", "detection", f"task {task.name!r}")
        if BACKGROUND not in task.class_names:
            what = f"pixels of no object have no class: class_names has no {BACKGROUND!r}"
            notes.add("warning", f"task {task.name!r}: {what}")


@dataclasses.dataclass(frozen=True)
class _Reader:
    """Reader of the raw label of an image; each method raises ValueError for invalid objects."""

    source: AnnotationSet
    task: Any
    requested: Mapping[str, str]
    """Name of a category -> class of the task."""
    others: OtherClasses
    notes: NoteCounter

    def _which(self, annotation: Annotation) -> str:
        return f"{self.source.noun} {annotation.get('id', '')}".rstrip()[:60]

    def _category(self, annotation: Annotation) -> Any:
        key = annotation.get("category_id")
        if not isinstance(key, (int, float, str)) or key not in self.source.categories:
            raise ValueError(f"{self._which(annotation)}: unknown category {repr(key)[:40]}")
        return self.source.categories[key]

    def _class(self, annotation: Annotation, image: AnnotatedImage) -> tuple[str | None, str]:
        """Returns the class of the task, None if it has none, and the place for notes."""
        name = self.requested.get(self._category(annotation))
        return name, f"{image.place}, {self._which(annotation)}"

    def boxes(self, image: AnnotatedImage) -> Boxes:
        """Returns the boxes of the single objects of the task's classes."""
        boxes = BoxList(image.size, self.notes)
        for annotation in image.annotations:
            name, place = self._class(annotation, image)
            if name is None:
                self.others.add(self._category(annotation), place)
            elif annotation.get("iscrowd"):
                self.notes.add("dropped", "crowd regions (iscrowd = 1)", place)
            else:
                boxes.add(self._box(annotation), name, place)
        return boxes.label()

    def _box(self, annotation: Annotation) -> tuple[float, float, float, float]:
        box = annotation.get("bbox")
        if not isinstance(box, list) or len(box) != 4:
            raise ValueError(f"{self._which(annotation)}: must have bbox [x, y, width, height]")
        try:
            x, y, width, height = finite(box)
        except ValueError as error:
            raise ValueError(f"{self._which(annotation)}: bbox {error}") from None
        if width < 0 or height < 0:
            raise ValueError(f"{self._which(annotation)}: bbox must have no negative size")
        return y, x, y + height, x + width

    def classes(self, image: AnnotatedImage) -> list[float]:
        """Returns 1 for each class of which the image has an object or a crowd, else `negative`."""
        present = set()
        for category in sorted({self._category(annotation) for annotation in image.annotations}):
            if category in self.requested:
                present.add(self.requested[category])
            else:
                self.others.add(category, image.place)
        names = self.task.class_names
        return [1.0 if name in present else float(self.task.negative) for name in names]

    def keypoints(self, image: AnnotatedImage) -> list[float] | None:
        """Returns the points of the only object, None if there is another number of objects.

        A task has one set of points per image: those of one of several objects are ambiguous.
        Crowd regions count as objects.
        """
        kinds = {self._category(a) for a in image.annotations if "keypoints" in a}
        objects = [a for a in image.annotations if self._category(a) in kinds]
        if len(objects) != 1 or objects[0].get("iscrowd"):
            number = "several objects (one set of points per image)" if objects else "no object"
            self.notes.add("missing", f"labels: images with {number}", image.place)
            return None
        (annotation,) = objects
        values, count = annotation.get("keypoints"), self.task.num_keypoints
        if not isinstance(values, list) or len(values) != 3 * count:
            raise ValueError(f"{self._which(annotation)}: must have x, y, v of {count} keypoints")
        try:
            points = np.asarray(finite(values)).reshape(-1, 3)
        except ValueError as error:
            raise ValueError(f"{self._which(annotation)}: keypoints {error}") from None
        # 0 is not labeled; 1, labeled but occluded, and 2, visible, are both labeled.
        points[:, 2] = points[:, 2] > 0
        if not points[:, 2].any():
            self.notes.add("missing", "labels: objects without a labeled point", image.place)
            return None
        order = [0, 1, 2] if getattr(self.task, "order", "yx") == "xy" else [1, 0, 2]
        return points[:, order].ravel().tolist()

    def mask(self, image: AnnotatedImage) -> StoredMask:
        """Returns the mask of all objects; pixels of crowd regions have no class."""
        names = self.task.class_names
        unknown = -1 if self.task.ignore is None else self.task.ignore
        regions = []
        for annotation in image.annotations:
            name, place = self._class(annotation, image)
            if name is None:
                self.others.add(self._category(annotation), place)
                continue
            index = names.index(name)
            if annotation.get("iscrowd"):
                what = "crowd regions (iscrowd = 1) to pixels without a class"
                self.notes.add("converted", what, place)
                index = UNKNOWN
            try:
                shape = annotation.get("segmentation")
                regions.append(read_region(index, shape, image.size, place, self.notes))
            except ValueError as error:
                raise ValueError(f"{self._which(annotation)}: {error}") from None
        name = self.requested.get(BACKGROUND)
        background = unknown if name is None else names.index(name)
        return StoredMask(image.size, tuple(regions), background, unknown)
