"""Boxes in tables and files: names of parts, order of coordinates, and the edge of the image."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal, get_args

import numpy as np
from jaxtyping import Bool, Float

from mtljax.tasks import parsing
from mtljax.tasks.base import Changes
from mtljax.tasks.point_lists import axis_of_column, require_inside, require_pixels
from mtljax.tasks.warps import Pixels
from mtljax.utils.text import listed

Order = Literal["yxyx", "xyxy", "xywh"]
"""Order of the numbers of a box: corners, or corner, width and height."""
ORDERS: tuple[Order, ...] = get_args(Order)
"""All orders."""
BOXES = ("boxes", "bbox", "bboxes")
"""Names of the boxes in a dictionary."""
CLASSES = ("classes", "class", "category", "categories", "category_id", "label", "labels")
"""Names of the parts of a label in tables, such as those of Hugging Face."""
STORED = "size"
"""Part of labels by sources that know the order of coordinates: (height, width) of the image."""
NEGLIGIBLE = 0.01
"""Pixels by which a box may exceed its image without being counted, for rounded numbers."""


def check_columns(columns: Sequence[str], order: Order) -> None:
    """Raises ValueError if names such as x0, y0, x1, y1 contradict the order."""
    axes = "".join(map(axis_of_column, columns[:4]))
    known = axes if "?" not in axes else axes[:2]
    if "?" not in known and known != order[: len(known)]:
        fitting = " or ".join(repr(other) for other in ORDERS if other.startswith(known))
        fix = f"set order={fitting}" if fitting else "list them in this order"
        raise ValueError(f"the columns {', '.join(columns[:4])} contradict order={order!r}: {fix}")


def parse(value: Any, order: Order) -> tuple[Float[np.ndarray, "n 4"], Sequence[Any] | None]:
    """Returns boxes (y0, x0, y1, x1) and their classes, None if the value has only boxes.

    Raises:
      ValueError: A part is missing or ambiguous, or the numbers are not four per box.
    """
    if isinstance(value, str) and value.lstrip().startswith(("{", "[{")):
        value = parsing.read_json(value)
    if isinstance(value, (list, tuple)) and value and all(isinstance(x, Mapping) for x in value):
        names = dict.fromkeys(name for box in value for name in box)
        value = {name: [box.get(name) for box in value] for name in names}
    if not isinstance(value, Mapping):
        boxes = _in_order(parsing.numbers(value), order)
        require_pixels(boxes, "boxes")
        return boxes, None
    numbers = parsing.numbers(_part(value, BOXES))
    classes = _part(value, CLASSES)
    if isinstance(classes, (str, bytes)) or np.ndim(classes) != 1:
        raise ValueError("the classes of boxes must be a list")
    boxes = _in_order(numbers, "yxyx" if STORED in value else order)
    if STORED not in value:
        require_pixels(boxes, "boxes")
    if len(classes) != len(boxes):
        raise ValueError(f"{len(boxes)} boxes, but {len(classes)} classes")
    return boxes, classes


def names_in(value: Any) -> list[str]:
    """Returns the classes of a label that are text, for tasks whose classes are those of the data.

    None if the label cannot be parsed: only its example cannot be used.
    """
    try:
        classes = parse(value, "yxyx")[1] if isinstance(value, (str, list, Mapping)) else None
    except ValueError:
        return []
    return [text for text in classes or () if isinstance(text, str) and text]


def _part(value: Mapping[str, Any], names: Sequence[str]) -> Any:
    matches = [name for name in names if name in value]
    if len(matches) != 1:
        has = listed(map(str, value), 100) or "nothing"
        raise ValueError(f"boxes need exactly one of {', '.join(names)}; the label has {has}")
    return value[matches[0]]


def _in_order(numbers: Float[np.ndarray, " n"], order: Order) -> Float[np.ndarray, "n 4"]:
    if numbers.size % 4:
        raise ValueError(f"{numbers.size} numbers; a box needs four")
    boxes = numbers.reshape(-1, 4)
    if order == "xywh":
        boxes = np.where(np.isfinite(boxes), boxes, np.nan)  # no warning for infinite ones
        boxes = np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], 1)
    return boxes if order == "yxyx" else boxes[:, [1, 0, 3, 2]]


def inside(
    boxes: Float[np.ndarray, "n 4"], known: Bool[np.ndarray, " n"], size: Pixels, order: Order
) -> tuple[Float[np.ndarray, "n 4"], Bool[np.ndarray, " n"], Changes]:
    """Returns boxes clipped to the image, the mask of those with an area in it, and counts.

    Boxes that are not finite, or have exchanged sides, are not changed.

    Raises:
      ValueError: Boxes are far outside, but inside with y and x exchanged.
    """
    others = [other for other in ORDERS if (other[0] == "y") != (order[0] == "y")]
    finite = known & np.isfinite(boxes).all(1)
    require_inside(boxes[finite].reshape(-1, 2), size, " or ".join(map(repr, others)))
    limits = np.asarray([*size, *size], boxes.dtype)
    valid = finite & (boxes[:, 2:] >= boxes[:, :2]).all(1)
    clipped = np.where(valid[:, None], np.clip(boxes, 0, limits), boxes)
    empty = valid & (clipped[:, 2:] <= clipped[:, :2]).any(1)
    kept = known & ~empty
    change = np.abs(np.subtract(clipped, boxes, where=valid[:, None], out=np.zeros_like(boxes)))
    exceeding = kept & (change > NEGLIGIBLE).any(1)
    counts: Changes = {
        ("dropped", "boxes without area inside their image"): int(empty.sum()),
        ("clipped", "boxes that exceed their image"): int(exceeding.sum()),
    }
    return clipped, kept, {key: count for key, count in counts.items() if count}
