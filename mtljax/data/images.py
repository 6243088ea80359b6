"""Readers of image files and array files, and of their sizes and types alone."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np
from jaxtyping import Num
from PIL import Image, ImageOps, PngImagePlugin, TiffImagePlugin

from mtljax.tasks.warps import Pixels
from mtljax.utils import bounded_reading

FORMATS = ("PNG", "JPEG", "MPO", "BMP", "GIF", "TIFF", "WEBP", "PPM")
MOST_PIXELS = 80_000_000
"""Maximum number of pixels; Pillow treats larger images as decompression bombs."""
ORIENTATION = 0x0112
"""EXIF tag of the camera's orientation; from 5 on, height and width are exchanged."""


def read_image(
    path: Path | BinaryIO, channels: int, size: Pixels | None = None
) -> Num[np.ndarray, "H W C"]:
    """Reads a grayscale (1 channel) or color (3) image, with EXIF orientation, on white.

    The file has one of `FORMATS`, or is npy [H, W] or [H, W, C]. If it will be resized to `size`, a
    large JPEG is decoded at a reduced size.
    """
    if isinstance(path, Path) and path.suffix == ".npy":
        array = read_npy(path)
        array = array[..., None] if array.ndim == 2 else array
        if array.ndim != 3 or array.shape[-1] != channels or array.dtype.kind not in "uif":
            raise ValueError(f"an array of shape {array.shape}; must be [H, W, {channels}]")
        return array if array.dtype == np.uint8 else array.astype(np.float32)
    mode = {1: "L", 3: "RGB"}[channels]
    with _opened(path) as file:
        if file.mode.startswith(("I", "F")):
            raise ValueError(f"an image of mode {file.mode}; must have 8 bits per channel")
        _require_plain(file, channels)
        if size is not None:
            file.draft(None, (2 * size[1], 2 * size[0]))
        image = flatten_transparency(ImageOps.exif_transpose(file))
        pixels = np.asarray(image if image.mode == mode else image.convert(mode))
    return pixels[..., None] if channels == 1 else pixels


def _require_plain(file: Image.Image, channels: int) -> None:
    """Raises ValueError for pixels that Pillow would reinterpret or leave out.

    Pillow keeps the high byte of 16-bit colors, takes a fourth band of a TIFF for transparency, and
    reads the first page and the first bands only.
    """
    if isinstance(file, TiffImagePlugin.TiffImageFile):
        if file.n_frames > 1:
            raise ValueError(f"a TIFF of {file.n_frames} pages; split it into files of one page")
        tags = file.tag_v2
        bands, bits = tags.get(277, 1), max(np.atleast_1d(tags.get(258, 1)))
        if bands > 3 and tags.get(262) == 2 and bands != channels:
            raise ValueError(
                f"a TIFF of {bands} bands, but the source reads {channels}; save the {channels} "
                "bands to use as PNG or npy"
            )
    else:
        bits = _png_bits(file)
    if bits > 8:
        raise ValueError(f"an image of {bits} bits per channel; must have 8 (or be a npy file)")


def _png_bits(file: Image.Image) -> int:
    """Returns the bits per channel of a PNG, from its header; 8 for other formats."""
    if not isinstance(file, PngImagePlugin.PngImageFile) or file.fp is None:
        return 8
    position = file.fp.tell()
    file.fp.seek(24)
    bits = file.fp.read(1)
    file.fp.seek(position)
    return bits[0]


def flatten_transparency(image: Image.Image) -> Image.Image:
    """Returns the image on a white background: colors of transparent pixels are arbitrary."""
    if not image.has_transparency_data:
        return image
    return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image.convert("RGBA"))


def image_size(path: Path) -> str:
    """Returns "height x width" of an image file without decoding it."""
    if path.suffix == ".npy":
        height, width = _map_npy(path).shape[:2]
    else:
        with _opened(path) as image:
            is_turned = image.getexif().get(ORIENTATION, 1) >= 5
            width, height = image.size[::-1] if is_turned else image.size
    return f"{height} x {width}"


def read_map(path: Path | BinaryIO) -> np.ndarray:
    """Reads a dense label: npy, or an image as stored (palette indices, 16 bits)."""
    if isinstance(path, Path) and path.suffix == ".npy":
        return read_npy(path)
    with _opened(path) as image:
        return np.asarray(image)


def storage_format(path: Path) -> str:
    """Returns the number format of a label file, read without decoding it."""
    if path.suffix == ".npy":
        return f"an array of {_map_npy(path).dtype}"
    with _opened(path) as image:
        return f"an image of mode {image.mode}"


def read_npy(path: Path) -> np.ndarray:
    """Reads an array file."""
    return np.array(_map_npy(path))


def _map_npy(path: Path) -> np.ndarray:
    try:
        return bounded_reading.read_npy(path)
    except (OSError, ValueError) as error:
        raise ValueError(f"cannot be read as an array: {_reason(error, path)}") from None


def open_image(path: Path | BinaryIO) -> Image.Image:
    """Opens an image file without decoding its pixels.

    Only formats with a decoder in this process are allowed: for others, such as PostScript, Pillow
    starts programs that execute the content of the file. Pillow raises many types of exception for
    a damaged file or one that is not an image.
    """
    if isinstance(path, Path):
        bounded_reading.check_regular(path)
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
    except Exception as error:
        raise ValueError(f"cannot be read as an image: {_reason(error, path)}") from None


def _reason(error: Exception, path: Path | BinaryIO) -> str:
    text = " ".join(str(error).split()).replace(repr(str(path)), "it").replace(str(path), "it")
    return text or type(error).__name__
