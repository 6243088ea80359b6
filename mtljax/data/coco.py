"""Reader of bounding boxes in COCO annotation files."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypedDict

import numpy as np
from jaxtyping import Float, Int

from mtljax.tasks.warps import Pixels
from mtljax.utils.bounded_reading import read_text
from mtljax.utils.registry import nearest

TOLERANCE = 1.0
"""Pixels by which a box may exceed its image, because annotations are rounded."""


class Boxes(TypedDict):
    """Boxes of one image: (y0, x0, y1, x1) in pixels, their classes, and the image's size."""

    boxes: Float[np.ndarray, "n 4"]
    classes: Int[np.ndarray, " n"]
    size: Pixels


def read_boxes(path: Path, class_names: Sequence[str]) -> dict[str, Boxes]:
    """Reads the boxes of each image, by image file name.

    An image that is listed without annotations has no boxes; an image that is not listed has no
    label. Classes are indices into `class_names`, or, if it is empty, follow the category ids.
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
    classes = _class_indices(path, categories, class_names)
    rows: dict[Any, list] = {image: [] for image in names}
    for position, annotation in enumerate(annotations):
        place = f"{path} annotation {annotation.get('id', position)}"
        image, box, category = _read_annotation(place, annotation, sizes)
        if category not in classes:
            raise ValueError(f"{place}: unknown category {category!r}")
        rows[image].append((*box, classes[category]))
    by_name: dict[str, Boxes] = {}
    for image, name in names.items():
        if name in by_name:
            raise ValueError(f"{path}: two images have the file name {name!r}")
        table = np.asarray(rows[image], np.float64).reshape(-1, 5)
        boxes, labels = table[:, :4], table[:, 4].astype(int)
        by_name[name] = {"boxes": boxes, "classes": labels, "size": sizes[image]}
    return by_name


def _class_indices(
    path: Path, categories: Mapping[Any, str], class_names: Sequence[str]
) -> dict[Any, int]:
    if not class_names:
        return {key: i for i, key in enumerate(sorted(categories))}
    for name in categories.values():
        if name not in class_names:
            raise ValueError(
                f"{path}: category {name!r} is not a class of the task{nearest(name, class_names)}"
            )
    return {key: list(class_names).index(name) for key, name in categories.items()}


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
    y1, x1, size = y + height, x + width, sizes[image]
    inside = min(y, x) >= -TOLERANCE and y1 <= size[0] + TOLERANCE and x1 <= size[1] + TOLERANCE
    if not (inside and width > 0 and height > 0):
        image_size = f"{size[0]} x {size[1]} pixels"
        raise ValueError(
            f"{place}: box {annotation['bbox']} is not inside its image of {image_size}"
        )
    return image, (y, x, y1, x1), category
