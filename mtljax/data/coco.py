"""Boxes from a COCO file."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mtljax.utils.files import read_text
from mtljax.utils.registry import nearest

SLACK = 1.0
"""Pixels by which a box may stick out of its image: annotations are rounded."""


def read_boxes(path: Path, class_names: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Image file name -> {"boxes": [n, 4], "classes": [n], "size": (height, width)}.

    An image that the file names but that has no annotation has no box; one that it does not name
    has no label. Classes are numbered by `class_names`, or, without them, in the order of the
    categories' ids.

    Raises:
      ValueError: The file is damaged; names the annotation.
    """
    try:
        found = json.loads(read_text(path))
        images, annotations = found["images"], found["annotations"]
        sizes = {i["id"]: (int(i["height"]), int(i["width"])) for i in images}
        names = {i["id"]: str(i["file_name"]) for i in images}
        categories = {c["id"]: str(c["name"]) for c in found["categories"]}
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror}") from None
    except (ValueError, TypeError, RecursionError) as error:
        raise ValueError(f"{path} is no COCO file: {error}") from None
    except KeyError as error:
        raise ValueError(f"{path} is no COCO file: it has no {error.args[0]!r}") from None
    numbers = _numbers(path, categories, class_names)
    boxes: dict[Any, list] = {image: [] for image in names}
    for place, annotation in enumerate(annotations):
        where = f"{path} annotation {annotation.get('id', place)}"
        image, box, kind = _annotation(where, annotation, sizes)
        if kind not in numbers:
            raise ValueError(f"{where}: there is no category {kind!r}")
        boxes[image].append((*box, numbers[kind]))
    made = {}
    for image, name in names.items():
        if name in made:
            raise ValueError(f"{path}: two images are called {name!r}")
        table = np.asarray(boxes[image], np.float64).reshape(-1, 5)
        made[name] = {
            "boxes": table[:, :4],
            "classes": table[:, 4].astype(int),
            "size": sizes[image],
        }
    return made


def _numbers(path: Path, categories: Mapping[Any, str], names: Sequence[str]) -> dict[Any, int]:
    if not names:
        return {key: i for i, key in enumerate(sorted(categories))}
    for name in categories.values():
        if name not in names:
            raise ValueError(f"{path}: category {name!r} is no class{nearest(name, names)}")
    return {key: list(names).index(name) for key, name in categories.items()}


def _annotation(where: str, annotation: Mapping[str, Any], sizes: Mapping[Any, Any]) -> tuple:
    try:
        image, kind = annotation["image_id"], annotation["category_id"]
        x, y, width, height = map(float, annotation["bbox"])
    except (KeyError, TypeError, ValueError):
        raise ValueError(
            f"{where}: must have image_id, category_id and bbox [x, y, width, height]"
        ) from None
    if image not in sizes:
        raise ValueError(f"{where}: there is no image {image!r}")
    box, size = (y, x, y + height, x + width), sizes[image]
    inside = min(y, x) >= -SLACK and box[2] <= size[0] + SLACK and box[3] <= size[1] + SLACK
    if not (inside and width > 0 and height > 0):
        raise ValueError(
            f"{where}: box {annotation['bbox']} is not within its image, {size[0]} x {size[1]}"
        )
    return image, box, kind
