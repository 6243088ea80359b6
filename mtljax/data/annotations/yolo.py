"""Reader of the label files of YOLO: one text file per image, one object per line."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import yaml

from mtljax.data.annotations.base import AnnotatedImage, Annotation, text_lines
from mtljax.data.annotations.boxes import finite
from mtljax.data.layouts import SPLITS
from mtljax.data.notes import NoteCounter
from mtljax.tasks.warps import Pixels
from mtljax.utils.bounded_reading import read_text
from mtljax.utils.text import normalized, shortened

FARTHEST = 1.0
"""Distance from the image, in images, above which a number cannot be a fraction of its size."""


class Points(NamedTuple):
    """Keypoints of each object: how many, and 2 or 3 numbers for each."""

    number: int
    """Number of points per object."""
    width: int
    """Numbers per point: 2 for x and y, 3 with visibility."""


@dataclasses.dataclass(frozen=True)
class YoloFile:
    """Content of a data.yaml; by default, of none.

    Attributes:
      path: Path of the file.
      base: Folder of the images as given; empty: that of the file.
      names: Names of the classes by index; empty if they have none.
      splits: Split -> folders or lists of images as given, relative to `base` or the file.
      points: Keypoints of each object, if there are any.
    """

    path: Path
    names: tuple[str, ...] = ()
    splits: Mapping[str, tuple[str, ...]] = dataclasses.field(default_factory=dict)
    base: str = ""
    points: Points | None = None


def read_yolo_file(path: Path) -> YoloFile:
    """Reads a data.yaml; raises ValueError if it is damaged or has invalid values."""
    try:
        content = yaml.safe_load(read_text(path))
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror}") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)  # str(error) has a part of the file
        where = f", line {mark.line + 1}" if mark else ""
        reason = getattr(error, "problem", None) or type(error).__name__
        raise ValueError(f"{path} is not valid YAML{where}: {shortened(reason, 120)}") from None
    if not isinstance(content, dict):
        raise ValueError(f"{path}: must have names, train and val")
    splits = {}
    for key in ("train", "val", "valid", "test"):
        given = content.get(key) or ()
        given = (given,) if isinstance(given, str) else given
        if not isinstance(given, (list, tuple)) or not all(isinstance(x, str) for x in given):
            raise ValueError(f"{path}: {key} must be a folder or a list of folders")
        if given:
            splits[SPLITS[key]] = tuple(given)
    names = _names(path, content)
    base = content.get("path")
    return YoloFile(
        path, names, splits, base if isinstance(base, str) else "", _points(path, content)
    )


def _names(path: Path, content: Mapping[Any, Any]) -> tuple[str, ...]:
    names = content.get("names") or ()
    if isinstance(names, dict):
        if sorted(names, key=str) != sorted(range(len(names)), key=str):
            raise ValueError(f"{path}: names must have the indices 0 to {len(names) - 1}")
        names = [names[index] for index in range(len(names))]
    if not isinstance(names, (list, tuple)) or not all(isinstance(n, (str, int)) for n in names):
        raise ValueError(f"{path}: names must be a list of names, or index: name")
    count = content.get("nc")
    if isinstance(count, int) and names and count != len(names):
        raise ValueError(f"{path}: nc is {count}, but names has {len(names)}")
    return tuple(normalized(str(name)) for name in names)


def _points(path: Path, content: Mapping[Any, Any]) -> Points | None:
    shape = content.get("kpt_shape")
    if shape is None:
        return None
    if not isinstance(shape, list) or len(shape) != 2 or shape[1] not in (2, 3):
        raise ValueError(f"{path}: kpt_shape must be [number of points, 2 or 3]")
    if not isinstance(shape[0], int) or shape[0] < 1:
        raise ValueError(f"{path}: kpt_shape must be [number of points, 2 or 3]")
    return Points(*shape)


def read_lines(path: Path) -> tuple[str, ...]:
    """Returns the lines of a text file with names, without empty ones at the end.

    Raises:
      ValueError: The file cannot be read as text, or has an empty line between lines.
    """
    lines = [normalized(line) for line in text_lines(path)]
    while lines and not lines[-1]:
        lines.pop()
    if not all(lines):
        raise ValueError(f"{path} line {lines.index('') + 1} is empty; must have a name")
    return tuple(lines)


def read_label_file(
    path: Path, size: Pixels, points: Points | None, notes: NoteCounter
) -> AnnotatedImage:
    """Reads the objects of an image.

    A line has a class and the box: center x, center y, width and height, as fractions of the image.
    Instead of the box it may have a polygon, x and y of three points or more. With `points`, the
    keypoints follow the box. Repeated lines are dropped, as by Ultralytics.

    Raises:
      ValueError: A line is invalid; the message names it.
    """
    objects: list[Annotation] = []
    seen = set()
    for number, line in enumerate(text_lines(path), 1):
        words = line.split()
        if not words:
            continue
        if tuple(words) in seen:
            notes.add("dropped", "repeated lines of label files", f"{path} line {number}")
            continue
        seen.add(tuple(words))
        try:
            objects.append({"id": number, **_read_line(words, size, points)})
        except ValueError as error:
            raise ValueError(f"{path} line {number}: {error}") from None
    return AnnotatedImage(size, tuple(objects), str(path))


def _read_line(words: Sequence[str], size: Pixels, points: Points | None) -> dict[str, Any]:
    try:
        index, *values = finite(words)
    except ValueError:
        raise ValueError("must have finite numbers, separated by spaces") from None
    if index < 0 or index != int(index):
        raise ValueError(f"the class {words[0][:20]!r} is not an index")
    _require_fractions(values)
    numbers = np.asarray(values)
    scale = np.asarray(size[::-1], float)
    parsed: dict[str, Any] = {"category_id": int(index)}
    expected = 4 if points is None else 4 + points.number * points.width
    if len(values) == expected:
        center, extent = numbers[:2] * scale, numbers[2:4] * scale
        if points is not None:
            parsed["keypoints"] = _keypoints(numbers[4:].reshape(points), scale)
        return parsed | {"bbox": [*(center - extent / 2).tolist(), *extent.tolist()]}
    if points is None and len(values) >= 6 and len(values) % 2 == 0:
        polygon = numbers.reshape(-1, 2) * scale
        low, high = polygon.min(0), polygon.max(0)
        box = [*low.tolist(), *(high - low).tolist()]
        return parsed | {"bbox": box, "segmentation": [polygon.ravel().tolist()]}
    if points is not None:
        raise ValueError(
            f"{len(words)} numbers; kpt_shape {list(points)} in data.yaml requires {expected + 1}"
        )
    raise ValueError(
        f"{len(words)} numbers; must be class, center x, center y, width, height, or class and a "
        "polygon; keypoints need kpt_shape in data.yaml, and confidences are not accepted"
    )


def _require_fractions(values: Sequence[float]) -> None:
    outside = [value for value in values if not -FARTHEST <= value <= 1 + FARTHEST]
    if outside:
        raise ValueError(
            f"{outside[0]:g} is not a fraction of the image; coordinates must be 0 to 1, not pixels"
        )


def _keypoints(points: np.ndarray, scale: np.ndarray) -> list[float]:
    """Returns x, y, v of each point; a point without v is labeled unless it is 0 or negative."""
    if points.shape[1] == 2:
        known = np.logical_and(points.min(1) >= 0, points.max(1) > 0)
        points = np.column_stack([points, known])
    return np.concatenate([points[:, :2] * scale, points[:, 2:]], 1).ravel().tolist()
