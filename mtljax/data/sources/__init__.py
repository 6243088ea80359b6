"""Data sources. One file each."""

from mtljax.data.sources.digits import digits

SOURCES = {
    "digits": digits,
}
"""Name -> function that loads the data: `() -> Source`."""

__all__ = ["SOURCES"]
