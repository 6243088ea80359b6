"""Parsing of values of data sources: numbers, class names and maps. Errors are ValueError."""

import json
import re
import unicodedata
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int, Num

from mtljax.utils.literal import parse_literal
from mtljax.utils.registry import nearest
from mtljax.utils.text import form, listed, shortened

COLOR_PLACES = np.asarray([65536, 256, 1], np.int64)
"""Weights of red, green and blue in one number."""
MOST_SHOWN = 4
"""Number of values of an array that a message may show."""
WITHOUT_COMMAS = re.compile(r"\s*\[\s*([^\s\[\],]+(?:\s+[^\s\[\],]+)+)\s*\]\s*")
"""Text of numbers as NumPy writes them: [1. 2.5 3.]."""
WHOLE_NUMBER = re.compile(r"-?\d+\.0+", re.ASCII)
"""Text of an integer as tables write it if the column also has empty cells."""


def number(value: Any) -> float:
    """Parses one number from a table cell or an array."""
    values = numbers(value)
    if values.size != 1:
        raise ValueError(f"{_short(value)} is not one number")
    return float(values[0])


def numbers(value: Any) -> Float[np.ndarray, " n"]:
    """Parses numbers: a sequence, an array, or text with numbers in brackets or between spaces."""
    try:
        values = value
        if isinstance(value, str):
            bare = WITHOUT_COMMAS.fullmatch(value)
            is_list = not bare and value.lstrip().startswith(("[", "("))
            values = read_json(value) if is_list else (bare[1] if bare else value).split()
        if isinstance(values, list) and any(isinstance(v, str) and "_" in v for v in values):
            raise ValueError  # Python would read 1_0 as 10
        if isinstance(value, bool):
            raise ValueError  # nor is True in a CSV file a number
        return np.asarray(values, np.float64).ravel()
    except (ValueError, TypeError, OverflowError, RecursionError):
        is_word = isinstance(value, str) and len(value.split()) == 1 and "[" not in value
        what = "a number" if is_word else "a list of numbers"
        raise ValueError(f"{_short(value)} is not {what}") from None


def read_json(text: str) -> Any:
    """Parses JSON, or a list, tuple or dict as Python and pandas write it: ['cat', 'dog'].

    Raises:
      ValueError: The text is neither, or nested too deeply.
    """
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        pass
    try:
        # Python would join 'a' 'b', which NumPy writes without commas, and read 1_0 as 10.
        if "\\" in text or re.search(r"""['"]\s+['"]|\d_\d""", text):
            raise ValueError
        return parse_literal(text.strip())
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        raise ValueError(f"{_short(text)} is not JSON") from None


def in_float32(values: Num[np.ndarray, "..."]) -> Float[np.ndarray, "..."]:
    """Converts to float32; numbers that are too large become infinite, without a warning."""
    with np.errstate(over="ignore"):
        return values.astype(np.float32)


def class_index(value: Any, names: Sequence[str]) -> int:
    """Parses a class: its name if the classes have names, or its index.

    If names are numbers, a value is a name only, so that 1 is the same class in all file formats.
    """
    text = class_text(value)
    if isinstance(value, str) and value.strip() in names:
        return names.index(value.strip())
    if text in names:
        return names.index(text)
    is_boolean = isinstance(value, (bool, np.bool_))
    key = str.lower if is_boolean else _spaced  # true in JSON is True in a CSV file
    equal = [i for i, name in enumerate(names) if text and key(name) == key(text)]
    if len(equal) == 1:
        return equal[0]
    if text and (any(map(_is_number, names)) or (names and is_boolean)):
        raise ValueError(_unknown_class(text, names))
    try:
        index = float(value) if is_boolean else number(value)
    except ValueError:
        if not isinstance(value, str):
            raise
        raise ValueError(_unknown_class(value, names)) from None
    if not abs(index) < 2**31 or index != np.floor(index):
        raise ValueError(f"{_short(value)} is not a class index")
    return int(index)


def _unknown_class(text: str, names: Sequence[str]) -> str:
    """Returns a message with the nearest name."""
    numbers = [n for n in names if _is_number(n) and _is_number(text) and float(n) == float(text)]
    hint = "; write its index or set class_names"
    if numbers:
        hint = f"; did you mean {shortened(numbers[0])!r}? (choose from {listed(names)})"
    elif names:
        hint = nearest(text.strip(), names)
    return f"unknown class {shortened(text)!r}{hint}"


def _spaced(text: str) -> str:
    """Returns a text in Unicode normal form C, with single spaces."""
    return " ".join(unicodedata.normalize("NFC", text).split())


def class_text(value: Any) -> str | None:
    """Returns a cell as it would be written in a table; None if it is not a single value."""
    if isinstance(value, str):
        text = unicodedata.normalize("NFC", value.strip())
        text = text.split(".")[0] if WHOLE_NUMBER.fullmatch(text) else text
        return "0" if text == "-0" else text
    if isinstance(value, bytes):
        return class_text(value.decode())
    if value is None or isinstance(value, (Mapping, list, tuple)) or np.ndim(value):
        return None
    if isinstance(value, (bool, np.bool_)):
        return str(bool(value))
    if isinstance(value, (float, np.floating)) and float(value).is_integer():
        return str(int(value))  # tables with missing integers store floating-point numbers
    return str(value)


def _is_number(text: str) -> bool:
    try:
        return bool(np.isfinite(float(text)))
    except ValueError:
        return False


def plane(value: Any) -> Num[np.ndarray, "H W"]:
    """Parses a map with one channel, or with equal channels: a gray picture stored in color."""
    values = np.asarray(value)
    if values.ndim == 3 and values.shape[-1] in (2, 4):
        values = without_opacity(values)
    if values.ndim == 3 and values.shape[-1] in (1, 3):
        if (values[..., :1] != values).any():
            raise ValueError(
                "a picture with colors; must be gray, or have palette indices (classes in colors: "
                "set `colors` of Segmentation)"
            )
        values = values[..., 0]
    if values.ndim != 2 or values.dtype.kind not in "buif":
        raise ValueError(f"an array of {form(values)}; must be numbers [H, W]")
    return values


def without_opacity(values: Num[np.ndarray, "H W C"]) -> Num[np.ndarray, "H W c"]:
    """Returns a picture without its last channel, which must be opaque."""
    if values.dtype.kind != "u" or (values[..., -1] != np.iinfo(values.dtype).max).any():
        raise ValueError(f"{values.shape[-1]} channels, the last one not opaque; must be gray")
    return values[..., :-1]


def binary_plane(value: Any, threshold: float | None = None) -> Int[np.ndarray, "H W"]:
    """Parses a map of 0 and 1, or of 0 and white; 1 where it is >= a threshold, if any."""
    values = plane(value)
    if threshold is not None:
        return (values >= threshold).astype(np.int32)
    white = 65535 if values.dtype == np.uint16 else 255
    distinct = np.unique(values)
    for highest in (1, white):
        if np.isin(distinct, (0, highest)).all():
            return (values != 0).astype(np.int32)
    raise ValueError(
        f"the values {_list(distinct)}; must be 0 and 1, or 0 and {white}; for other gray levels "
        "set threshold"
    )


def classes_from(
    stored: Num[np.ndarray, "H W"], first: int, count: int, unlabelled: int | None, ignored: int
) -> Int[np.ndarray, "H W"]:
    """Returns the class of each value, which is the value minus `first`.

    Other values than those of `count` classes (0: without maximum) and `unlabelled`, which becomes
    `ignored`, are an error.
    """
    is_class = (stored >= first) & (stored < (first + count if count else np.inf))
    is_class &= stored == np.floor(stored)
    is_ignored = _equals(stored, unlabelled)
    other = np.unique(stored[~is_class & ~is_ignored])
    if other.size:
        highest = f"{first + count - 1}" if count else ""
        rest = "" if unlabelled is None else f", or {unlabelled} for pixels without a class"
        raise ValueError(
            f"the values {_list(other)} are not classes; must be {first}..{highest}{rest}; if the "
            "classes have other values, set `values`"
        )
    return np.where(is_ignored, ignored, stored - float(first)).astype(np.int32)


def classes_of_values(
    stored: Num[np.ndarray, "H W"], values: Sequence[int], unlabelled: int | None, ignored: int
) -> Int[np.ndarray, "H W"]:
    """Returns the class of each value; all but `values` and `unlabelled` are an error."""
    classes, known = np.full(stored.shape, ignored, np.int32), _equals(stored, unlabelled)
    for index, value in enumerate(values):
        matches = stored == value
        classes[matches], known = index, known | matches
    if not known.all():
        raise ValueError(f"the values {_list(np.unique(stored[~known]))} are not in `values`")
    return classes


def _equals(stored: Num[np.ndarray, "H W"], value: int | None) -> Bool[np.ndarray, "H W"]:
    return np.zeros(stored.shape, bool) if value is None else stored == value


def classes_of_colors(
    value: Any,
    colors: Sequence[tuple[int, int, int]],
    ignored_colors: Sequence[tuple[int, int, int]],
    ignored: int,
) -> Int[np.ndarray, "H W"]:
    """Returns the class of each color; a color without a class is an error."""
    picture = np.asarray(value)
    if picture.dtype != np.uint8:
        raise ValueError(f"values of type {picture.dtype}; colors must have 8 bits")
    if picture.ndim == 3 and picture.shape[-1] in (2, 4):
        picture = without_opacity(picture)
    picture = picture[..., None] if picture.ndim == 2 else picture
    if picture.ndim != 3 or picture.shape[-1] not in (1, 3):
        raise ValueError(f"an array of shape {picture.shape}; must be [H, W, 3]")
    codes = np.broadcast_to(picture, (*picture.shape[:2], 3)) @ COLOR_PLACES
    class_of = {int(np.dot(color, COLOR_PLACES)): i for i, color in enumerate(colors)}
    class_of = {int(np.dot(color, COLOR_PLACES)): ignored for color in ignored_colors} | class_of
    present, where = np.unique(codes, return_inverse=True)
    for code in present:
        if int(code) not in class_of:
            color = tuple(int(code) // place % 256 for place in COLOR_PLACES.tolist())
            raise ValueError(
                f"{(codes == code).sum()} pixels have color {color}, which no class has; add it to "
                "`colors` or `ignored_colors`"
            )
    classes = np.asarray([class_of[int(code)] for code in present], np.int32)
    return classes[where].reshape(codes.shape)


def _list(values: np.ndarray) -> str:
    """Returns at most six numbers as text."""
    shown = [f"{value:g}" for value in values[:6]]
    return ", ".join(shown + ["..."] * (len(values) > 6))


def _short(value: Any) -> str:
    """Returns a value for messages, without the content of arrays and files."""
    if isinstance(value, bytes):
        return f"{len(value)} bytes"
    if isinstance(value, np.ndarray) and value.size > MOST_SHOWN:
        return f"an array of {form(value)}"
    return shortened(repr(value))
