"""Points in tables and files: order of coordinates, visibility, and the edge of the image."""

import re
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from jaxtyping import Float

from mtljax.tasks import parsing
from mtljax.tasks.warps import Pixels

Order = Literal["yx", "xy"]
"""Order of the coordinates."""
OTHER: dict[Order, Order] = {"yx": "xy", "xy": "yx"}
"""Order -> the other order."""
FAR = 0.1
"""Distance from the image, as a fraction of its side, from which a point may have exchanged
coordinates."""


def check_columns(columns: Sequence[str], count: int, order: Order) -> None:
    """Raises ValueError if names of columns contradict the order of coordinates and points."""
    width = max(1, len(columns) // count)
    points = [columns[i : i + width] for i in range(0, len(columns), width)]
    axes = ["".join(map(axis_of_column, point)) for point in points]
    if {names[:2] for names in axes} == {OTHER[order]}:
        raise ValueError(
            f"the columns {columns[0]}, {columns[1]} have {' before '.join(OTHER[order])}, but "
            f"order={order!r}: set order={OTHER[order]!r}"
        )
    expected = (order[0], order[1], "?")
    for point, names in zip(points, axes, strict=True):
        pairs = zip(names, expected, strict=False)
        if any(axis in "xy" and axis != fitting for axis, fitting in pairs):
            raise ValueError(
                f"the columns {', '.join(point)} are not {order[0]}, {order[1]} of one point: list "
                f"the columns point by point, such as {order[0]}0,{order[1]}0,{order[0]}1,..."
            )


def axis_of_column(column: str) -> str:
    """Returns x, y, w or h if the name of a column contains it, such as x1, nose_x, noseX or xmin.

    Returns "?" for other names.
    """
    words = re.sub(r"[A-Z]", r" \g<0>", column).lower()
    match = re.search(
        r"(?<![a-z])(?:([xy])(?:min|max)?|(w)(?:idth)?|(h)(?:eight)?)(?![a-z])", words
    )
    return next(filter(None, match.groups())) if match else "?"


def parse(value: Any, count: int, order: Order) -> Float[np.ndarray, "K 3"]:
    """Parses two coordinates of each point, or these and its visibility (0, 1 or 2).

    Raises:
      ValueError: The numbers are not those of `count` points.
    """
    if isinstance(value, (list, tuple)):
        value = [np.nan if isinstance(x, str) and not x.strip() else x for x in value]
    values = parsing.numbers(value)
    for width in (3, 2):
        if values.size == width * count:
            return _label(values.reshape(-1, width), order)
    first, second = order
    raise ValueError(
        f"{values.size} numbers for {count} points; each point needs {first}, {second} or {first}, "
        f"{second}, visible"
    )


def _label(values: Float[np.ndarray, "K w"], order: Order) -> Float[np.ndarray, "K 3"]:
    points = values[:, :2] if order == "yx" else values[:, 1::-1]
    known = np.isfinite(points)
    visible = known.any(1)
    if values.shape[1] == 3:
        marks = np.where(visible, values[:, 2], np.nan_to_num(values[:, 2]))
        wrong = ~np.isin(marks, (0, 1, 2))
        if wrong.any():
            i = int(wrong.argmax())
            raise ValueError(f"visibility of point {i} is {marks[i]:g}; must be 0, 1 or 2")
        visible = marks > 0
    lost = np.flatnonzero(visible & ~known.all(1))
    if len(lost):
        raise ValueError(f"point {lost[0]} has no y or no x; leave both empty if not known")
    points = np.where(visible[:, None], points, 0.0)
    require_pixels(points[visible], "points")
    return parsing.in_float32(np.concatenate([points, visible[:, None]], 1))


def without_outside(
    label: Float[np.ndarray, "K 3"], size: Pixels, order: Order
) -> Float[np.ndarray, "K 3"]:
    """Returns the points, with those outside of an image of this size not visible.

    Raises:
      ValueError: They are far outside, but inside with y and x exchanged.
    """
    points, visible = label[:, :2], label[:, 2] > 0
    require_inside(points[visible], size, repr(OTHER[order]))
    outside = visible & ((points < 0) | (points > np.asarray(size, np.float32))).any(1)
    return np.where(outside[:, None], np.float32(0), label)


def require_pixels(coordinates: Float[np.ndarray, "..."], noun: str) -> None:
    """Raises ValueError if all are within the first pixel, as fractions of the image are."""
    within = coordinates.size and (coordinates >= 0).all() and (coordinates <= 1).all()
    if within and (coordinates % 1 > 0).any():
        raise ValueError(
            f"all {noun} are within the first pixel of the image; coordinates must be in pixels, "
            "not fractions of the image"
        )


def require_inside(points: Float[np.ndarray, "n 2"], size: Pixels, order: str) -> None:
    """Raises ValueError, naming another order, if only exchanged coordinates are in the image."""
    sides = np.asarray(size, points.dtype)
    far = ((points > (1 + FAR) * sides) | (points < -FAR * sides)).any(1)
    exchanged = points[:, ::-1]
    if far.any() and ((exchanged >= 0) & (exchanged <= sides)).all():
        y, x = points[far][0]
        raise ValueError(
            f"y = {y:g}, x = {x:g} is outside of the image of {size[0]} x {size[1]} pixels, but "
            f"inside with y and x exchanged: set order={order}, or, in arrays, put y first"
        )
