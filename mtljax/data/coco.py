"""Reader of bounding boxes in COCO annotation files."""

import json
import unicodedata
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypedDict

import numpy as np
from jaxtyping import Float, Int

from mtljax.data.notes import NoteCounter
from mtljax.tasks import Task
from mtljax.tasks.warps import Pixels
from mtljax.utils.bounded_reading import read_text
from mtljax.utils.registry import nearest
from mtljax.utils.text import error_prefix


class Boxes(TypedDict):
    """Boxes of one image: (y0, x0, y1, x1) in pixels, their classes, and the image's size."""

    boxes: Float[np.ndarray, "n 4"]
    classes: Int[np.ndarray, " n"]
    size: Pixels


def read_boxes(path: Path, task: Task, notes: NoteCounter) -> tuple[Task, dict[str, Boxes]]:
    """Reads the boxes of each image, by image file name with forward slashes.

    An image that is listed without annotations has no boxes; an image that is not listed has no
    label. Classes are indices into the task's `class_names`, which are the categories by id if it
    has none of its own. Boxes are clipped to their image. Boxes without area, crowd regions
    (`iscrowd`), which mark many objects at once, and boxes of categories outside `class_names` are
    dropped; `notes` counts all.
    """
    try:
        content = json.loads(read_text(path))
        images, annotations = content["images"], content["annotations"]
        sizes = {i["id"]: (int(i["height"]), int(i["width"])) for i in images}
        names = {i["id"]: str(i["file_name"]) for i in images}
        categories = {c["id"]: str(c["name"]) for c in content["categories"]}
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror}") from None
    except (ValueError, TypeError, RecursionError) as error:
        raise ValueError(f"{path} is not a COCO file: {error}") from None
    except KeyError as error:
        raise ValueError(f"{path} is not a COCO file: it has no {error.args[0]!r}") from None
    with error_prefix(path):
        task = task.with_classes([categories[key] for key in sorted(categories)])
    classes = _class_indices(path, categories, getattr(task, "class_names", ()))
    rows: dict[Any, list] = {image: [] for image in names}
    for position, annotation in enumerate(annotations):
        place = f"{path} annotation {annotation.get('id', position)}"
        image, box, category = _read_annotation(place, annotation, sizes)
        if category not in categories:
            raise ValueError(f"{place}: unknown category {category!r}")
        if category not in classes:
            notes.add("dropped", f"boxes of category {categories[category]!r}", place)
        elif annotation.get("iscrowd"):
            notes.add("dropped", "crowd regions (iscrowd = 1)", place)
        elif clipped := _clip(box, sizes[image]):
            if clipped != box:
                notes.add("clipped", "boxes that exceed their image", place)
            rows[image].append((*clipped, classes[category]))
        else:
            notes.add("dropped", "boxes without area inside their image", place)
    by_name: dict[str, Boxes] = {}
    for image, name in names.items():
        name = normalized_path(name)
        if name in by_name:
            raise ValueError(f"{path}: two images have the file name {name!r}")
        table = np.asarray(rows[image], np.float64).reshape(-1, 5)
        boxes, labels = table[:, :4], table[:, 4].astype(int)
        by_name[name] = {"boxes": boxes, "classes": labels, "size": sizes[image]}
    return task, by_name


def _class_indices(
    path: Path, categories: Mapping[Any, str], class_names: Sequence[str]
) -> dict[Any, int]:
    if not class_names:
        return {key: i for i, key in enumerate(sorted(categories))}
    missing = [name for name in class_names if name not in categories.values()]
    if missing:
        raise ValueError(
            f"{path} has no category {missing[0]!r}{nearest(missing[0], categories.values())}"
        )
    indices = {name: i for i, name in enumerate(class_names)}
    return {key: indices[name] for key, name in categories.items() if name in indices}


def normalized_path(name: str) -> str:
    """Returns a file name with forward slashes, in Unicode normal form C, without "./"."""
    return unicodedata.normalize("NFC", name.strip()).replace("\\", "/").removeprefix("./")


def match_images(
    path: Path, by_name: Mapping[str, Boxes], images: Sequence[str], notes: NoteCounter
) -> list[Boxes | None]:
    """Returns the boxes of each image, by relative path, or by base name if that is unique.

    Args:
      path: COCO file, for messages.
      by_name: Boxes by the file name in the COCO file.
      images: Relative path of each image.

    Raises:
      ValueError: An image matches several entries by its base name, or an entry several images.
    """
    base = lambda name: name.rpartition("/")[2]
    entries, files = (
        {key: [name for name in names if base(name) == key] for key in map(base, names)}
        for names in (list(by_name), list(map(normalized_path, images)))
    )
    found: list[str | None] = []
    for image in map(normalized_path, images):
        tails = [image.split("/", i)[-1] for i in range(image.count("/") + 1)]
        name = next((tail for tail in tails[:-1] or tails if tail in by_name), None)
        if name is None and (candidates := entries.get(base(image))):
            if len(candidates) > 1 or len(files[base(image)]) > 1:
                raise ValueError(
                    f"{path}: image {image} matches {candidates[0]} by its base name only, which "
                    "is not unique; write the same relative path in the table and in file_name"
                )
            name = candidates[0]
        found.append(name)
    used = {name for name in found if name is not None}
    for name in by_name:
        if name not in used:
            notes.add("unmatched", f"images of {path.name} without a row in the table", name)
    unlisted = [image for image, name in zip(images, found, strict=True) if name is None]
    if unlisted:
        notes.add("missing", f"labels: images not in {path.name}", unlisted[0], len(unlisted))
    return [None if name is None else by_name[name] for name in found]


def _clip(
    box: tuple[float, float, float, float], size: Pixels
) -> tuple[float, float, float, float] | None:
    """Returns a box (y0, x0, y1, x1) clipped to its image; None if no area remains."""
    y0, x0, y1, x1 = box
    y0, x0, y1, x1 = max(y0, 0.0), max(x0, 0.0), min(y1, float(size[0])), min(x1, float(size[1]))
    return (y0, x0, y1, x1) if y1 > y0 and x1 > x0 else None


def _read_annotation(
    place: str, annotation: Mapping[str, Any], sizes: Mapping[Any, Pixels]
) -> tuple[Any, tuple[float, float, float, float], Any]:
    """Returns (image id, box, category id)."""
    try:
        image, category = annotation["image_id"], annotation["category_id"]
        x, y, width, height = map(float, annotation["bbox"])
    except (KeyError, TypeError, ValueError):
        required = "image_id, category_id and bbox [x, y, width, height]"
        raise ValueError(f"{place}: must have {required}") from None
    if image not in sizes:
        raise ValueError(f"{place}: unknown image {image!r}")
    if not np.isfinite([x, y, width, height]).all() or width < 0 or height < 0:
        raise ValueError(f"{place}: bbox must have finite numbers and no negative size")
    return image, (y, x, y + height, x + width), category
