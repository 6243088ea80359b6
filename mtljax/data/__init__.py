"""Data: sources of labeled images, augmentation, batching and transfer to the device."""

from mtljax.data.augment import AUGMENTATIONS, Augment, make_augment
from mtljax.data.base import Arrays, LabelRequest, Source, Split
from mtljax.data.sources import SOURCES, make_source
from mtljax.data.sources.arrays import from_arrays
from mtljax.data.sources.multi import overlay

__all__ = [
    "AUGMENTATIONS",
    "SOURCES",
    "Arrays",
    "Augment",
    "LabelRequest",
    "Source",
    "Split",
    "from_arrays",
    "make_augment",
    "make_source",
    "overlay",
]
