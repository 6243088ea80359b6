"""Data sources. One file each."""

from collections.abc import Callable

from mtljax.data.base import Source
from mtljax.data.sources.digits import digits

SOURCES: dict[str, Callable[..., Source]] = {
    "digits": digits,
}
"""Name -> function that loads the data: `() -> Source`."""

__all__ = ["SOURCES"]
