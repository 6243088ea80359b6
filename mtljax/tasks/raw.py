"""What data sources have, read: numbers, words and maps, before a task makes labels of them."""

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Num

from mtljax.utils.registry import nearest


def number(value: Any) -> float:
    """One number, from a cell of a table or an array.

    Raises:
      ValueError: It is none.
    """
    found = numbers(value)
    if found.size != 1:
        raise ValueError(f"{_short(value)} is not one number")
    return float(found[0])


def numbers(value: Any) -> Float[np.ndarray, " n"]:
    """Several numbers: a sequence, an array, or words between spaces or in brackets.

    Raises:
      ValueError: Something in it is no number.
    """
    if isinstance(value, str):
        value = _listed(value)
    try:
        return np.asarray(value, np.float64).ravel()
    except (ValueError, TypeError):
        raise ValueError(f"{_short(value)} is not made of numbers") from None


def _listed(text: str) -> Any:
    if text.lstrip().startswith("["):
        try:
            return json.loads(text)
        except ValueError:
            raise ValueError(f"{_short(text)} is no list of numbers") from None
    return text.split()


def class_of(value: Any, names: Sequence[str]) -> int:
    """A class: its number, or its name if the classes have any.

    Raises:
      ValueError: It is neither.
    """
    if isinstance(value, bytes):
        value = value.decode()
    if isinstance(value, str) and value.strip() in names:
        return names.index(value.strip())
    try:
        found = number(value)
    except ValueError:
        if not isinstance(value, str):
            raise
        hint = nearest(value.strip(), names) if names else "; write its number or set class_names"
        raise ValueError(f"there is no class {value.strip()!r}{hint}") from None
    if found != np.floor(found):
        raise ValueError(f"{_short(value)} is not the number of a class")
    return int(found)


def plane(value: Any) -> Num[np.ndarray, "H W"]:
    """A map of one channel.

    Raises:
      ValueError: It is none.
    """
    found = np.asarray(value)
    if found.ndim == 3 and found.shape[-1] == 1:
        found = found[..., 0]
    if found.ndim != 2 or found.dtype.kind not in "buif":
        raise ValueError(
            f"an array of shape {found.shape} and type {found.dtype}; must be numbers [H, W]"
        )
    return found


def yes_or_no(value: Any) -> np.ndarray:
    """A map of 0 and 1, written so or as black and white (0 and 255).

    Raises:
      ValueError: There is something else in it.
    """
    found = plane(value)
    good = (found == 0) | (found == 1) | (found == 255)
    if not good.all():
        raise ValueError(f"a value of {found[~good][0]}; must be 0 or 1, or 0 and 255")
    return (found != 0).astype(np.int32)


def _short(value: Any) -> str:
    text = " ".join(repr(value).split())
    return text if len(text) <= 60 else text[:57] + "..."
