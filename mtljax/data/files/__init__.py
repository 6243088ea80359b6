"""Image files and array files: reading, sizes and types."""

from mtljax.data.files.images import read_image

__all__ = ["read_image"]
