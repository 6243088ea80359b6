"""Data: sources of labelled images, their order, and their way to the device."""

from mtljax.data.augment import AUGMENTATIONS
from mtljax.data.base import Arrays, Source, Split
from mtljax.data.sources import SOURCES

__all__ = ["AUGMENTATIONS", "SOURCES", "Arrays", "Source", "Split"]
