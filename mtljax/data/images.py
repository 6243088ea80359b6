"""Image files and arrays in files, read whole or only looked at."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from jaxtyping import Num
from PIL import Image, ImageOps

from mtljax.tasks.warps import Pixels
from mtljax.utils import files

FORMATS = ("PNG", "JPEG", "MPO", "BMP", "GIF", "TIFF", "WEBP", "PPM")
MOST_PIXELS = 80_000_000
"""Beyond this, Pillow takes an image for a decompression bomb."""
ORIENTATION = 0x0112
"""The EXIF tag that says how a camera was held; from 5 on, height and width are exchanged."""


def read_image(
    path: Path | BinaryIO, channels: int, size: Pixels | None = None
) -> Num[np.ndarray, "H W C"]:
    """An image file, grey (1 channel) or coloured (3), turned as the camera says, on white.

    Args:
      path: PNG, JPEG or the like, or npy [H, W] or [H, W, C].
      channels: 1 or 3.
      size: What it will be resized to, so that a large JPEG need not be decoded in full.

    Raises:
      ValueError: It is no such image.
    """
    if isinstance(path, Path) and path.suffix == ".npy":
        found = read_npy(path)
        found = found[..., None] if found.ndim == 2 else found
        if found.ndim != 3 or found.shape[-1] != channels or found.dtype.kind not in "uif":
            raise ValueError(f"an array of shape {found.shape}; must be [H, W, {channels}]")
        return found if found.dtype == np.uint8 else found.astype(np.float32)
    mode = {1: "L", 3: "RGB"}[channels]
    with _opened(path) as image:
        if image.mode.startswith(("I", "F")):
            raise ValueError(f"an image of mode {image.mode}; must have 8 bits per channel")
        if size is not None:
            image.draft(None, (2 * size[1], 2 * size[0]))
        turned = opaque(ImageOps.exif_transpose(image))
        found = np.asarray(turned if turned.mode == mode else turned.convert(mode))
    return found[..., None] if channels == 1 else found


def opaque(image: Image.Image) -> Image.Image:
    """The image as it looks on white paper: what stands where it is transparent is by accident."""
    if not image.has_transparency_data:
        return image
    return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image.convert("RGBA"))


def image_size(path: Path) -> str:
    """Height x width of an image file, from its first bytes.

    Raises:
      ValueError: It cannot be read.
    """
    if path.suffix == ".npy":
        height, width = read_npy(path, mmap_mode="r").shape[:2]
        return f"{height} x {width}"
    with _opened(path) as image:
        turned = image.getexif().get(ORIENTATION, 1) >= 5
        width, height = image.size[::-1] if turned else image.size
        return f"{height} x {width}"


def read_map(path: Path | BinaryIO) -> np.ndarray:
    """A label in a file: npy, or an image as it is stored (indices of a palette, 16 bits).

    Raises:
      ValueError: It cannot be read.
    """
    if isinstance(path, Path) and path.suffix == ".npy":
        return read_npy(path)
    with _opened(path) as image:
        return np.asarray(image)


def map_kind(path: Path) -> str:
    """How a label's file stores its numbers, from its first bytes.

    Raises:
      ValueError: It cannot be read.
    """
    if path.suffix == ".npy":
        return f"an array of {read_npy(path, mmap_mode='r').dtype}"
    with _opened(path) as image:
        return f"an image of mode {image.mode}"


def read_npy(path: Path, mmap_mode: Any = None) -> np.ndarray:
    """An array in a file.

    Raises:
      ValueError: It is none, or one of Python objects.
    """
    try:
        found = files.read_npy(path)
    except (OSError, ValueError) as error:
        raise ValueError(f"cannot be read as an array: {_reason(error, path)}") from None
    return found if mmap_mode else np.array(found)


def open_image(path: Path | BinaryIO) -> Image.Image:
    """Opens an image file, whose pixels are not yet decoded.

    Only formats that a decoder in this process reads: for others, as PostScript, Pillow starts
    programs that run what is in the file.

    Raises:
      ValueError: It has more pixels than are decoded.
      Exception: What Pillow raises where it is no image, or a damaged one.
    """
    if isinstance(path, Path):
        files.check_regular(path)
    Image.init()
    image = Image.open(path, formats=[name for name in FORMATS if name in Image.OPEN])
    if image.width * image.height > MOST_PIXELS:
        image.close()
        raise ValueError(
            f"an image of {image.height} x {image.width} pixels; at most {MOST_PIXELS} are decoded"
        )
    return image


@contextlib.contextmanager
def _opened(path: Path | BinaryIO) -> Iterator[Image.Image]:
    try:
        with open_image(path) as image:
            yield image
    except ValueError:
        raise
    except Exception as error:  # damaged files make Pillow raise anything
        raise ValueError(f"cannot be read as an image: {_reason(error, path)}") from None


def _reason(error: Exception, path: Path | BinaryIO) -> str:
    text = " ".join(str(error).split()).replace(repr(str(path)), "it").replace(str(path), "it")
    return text or type(error).__name__
