"""Parsing of values of data sources: numbers, class names and maps. Errors are ValueError."""

import json
import unicodedata
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Int, Num

from mtljax.utils.registry import nearest


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
            values = json.loads(value) if value.lstrip().startswith("[") else value.split()
        return np.asarray(values, np.float64).ravel()
    except (ValueError, TypeError):
        raise ValueError(f"{_short(value)} is not a list of numbers") from None


def class_index(value: Any, names: Sequence[str]) -> int:
    """Parses a class: its name if the classes have names, or its index.

    If names are numbers, a value is a name only, so that 1 is the same class in all file formats.
    """
    if isinstance(value, bytes):
        value = value.decode()
    text = _class_text(value)
    if text in names:
        return names.index(text)
    if text and any(map(_is_number, names)):
        same = [name for name in names if _is_number(name) and _is_number(text)]
        hint = next((f"; did you mean {n!r}?" for n in same if float(n) == float(text)), "")
        raise ValueError(f"unknown class {text!r}{hint} (choose from {', '.join(names)})")
    try:
        index = number(value)
    except ValueError:
        if not isinstance(value, str):
            raise
        hint = nearest(value.strip(), names) if names else "; write its index or set class_names"
        raise ValueError(f"unknown class {value.strip()!r}{hint}") from None
    if index != np.floor(index):
        raise ValueError(f"{_short(value)} is not a class index")
    return int(index)


def _class_text(value: Any) -> str | None:
    """Returns a cell as it would be written in a table; None if it is not a single value."""
    if isinstance(value, str):
        return unicodedata.normalize("NFC", value.strip())
    if np.ndim(value) or isinstance(value, (bool, np.bool_)):
        return None
    if isinstance(value, (float, np.floating)) and float(value).is_integer():
        return str(int(value))  # tables with missing integers store floating-point numbers
    return str(value)


def _is_number(text: str) -> bool:
    try:
        return bool(np.isfinite(float(text)))
    except ValueError:
        return False


def plane(value: Any) -> Num[np.ndarray, "H W"]:
    """Parses a map with one channel."""
    values = np.asarray(value)
    if values.ndim == 3 and values.shape[-1] == 1:
        values = values[..., 0]
    if values.ndim != 2 or values.dtype.kind not in "buif":
        raise ValueError(
            f"an array of shape {values.shape} and type {values.dtype}; must be numbers [H, W]"
        )
    return values


def binary_plane(value: Any) -> Int[np.ndarray, "H W"]:
    """Parses a map of 0 and 1, or of 0 and 255."""
    values = plane(value)
    valid = (values == 0) | (values == 1) | (values == 255)
    if not valid.all():
        raise ValueError(f"a value of {values[~valid][0]}; must be 0 or 1, or 0 and 255")
    return (values != 0).astype(np.int32)


def _short(value: Any) -> str:
    text = " ".join(repr(value).split())
    return text if len(text) <= 60 else text[:57] + "..."
