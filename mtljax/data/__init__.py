"""Data: sources of labelled images, their order, and their way to the device."""

from mtljax.data.augment import AUGMENTATIONS, Augment, make_augment
from mtljax.data.base import Arrays, Source, Split, Wanted
from mtljax.data.sources import SOURCES, make_source
from mtljax.data.sources.arrays import from_arrays
from mtljax.data.sources.multi import overlay

__all__ = [
    "AUGMENTATIONS",
    "SOURCES",
    "Arrays",
    "Augment",
    "Source",
    "Split",
    "Wanted",
    "from_arrays",
    "make_augment",
    "make_source",
    "overlay",
]
