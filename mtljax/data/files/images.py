"""Readers of image files and array files, and of only their sizes and types."""

import contextlib
import functools
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np
from jaxtyping import Num
from PIL import Image, ImageOps, UnidentifiedImageError

from mtljax.data.files.jpeg import Decoder, decode, in_memory, reduce
from mtljax.data.files.pictures import (
    MOST_PIXELS,
    flatten_transparency,
    is_deep,
    open_image,
    read_deep,
    require_one_picture,
)
from mtljax.data.files.tiff import inspect, is_tiff, read_bands
from mtljax.tasks import Task
from mtljax.tasks.warps import Pixels
from mtljax.utils import bounded_reading
from mtljax.utils.text import form, shortened

FILES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".ppm", ".npy")
"""Extensions of image files and arrays, in lower case; a cell with one is a file name."""
ORIENTATION = 0x0112
"""EXIF tag of the camera's orientation."""
TURNED = (5, 6, 7, 8)
"""Orientations in which height and width are exchanged."""
LUMA = np.asarray([299, 587, 114], np.float32) / 1000
"""Weights of red, green and blue in gray, as in Pillow."""


class ImageContent(NamedTuple):
    """Pixels of a file, uint8 or float32."""

    values: Num[np.ndarray, "H W C"]
    """Pixels, upright."""
    is_scaled: bool
    """True if white is 255; False for floating-point values, which are used as they are."""
    size: Pixels
    """Height and width of the upright image in the file, which may be decoded at a reduced size."""


def read_image(
    path: Path | BinaryIO, channels: int, size: Pixels | None = None, decoder: Decoder = "turbo"
) -> Num[np.ndarray, "H W C"]:
    """Reads an image in 0..255, with EXIF orientation: uint8, or float32 above 8 bits.

    The file has a format of `mtljax.data.files.pictures.FORMATS`, or is npy [H, W] or [H, W, C].
    Values of b bits are divided by (2^b - 1) / 255, so that 8 and 16 bits can be mixed;
    floating-point values are used as they are.
    For 1 or 3 channels, pictures are converted to gray or RGB, on white where they are transparent.
    Otherwise, and for arrays, the number of bands must be `channels`. A fourth band of a TIFF is
    not transparency, unless the file declares it and it is opaque.

    Args:
      channels: Number of channels.
      size: Height and width that the image will be resized to: a large JPEG is decoded at a reduced
        size.
      decoder: Decoder of JPEG files.

    Raises:
      ValueError: The file is damaged, has another number of bands, several pages, or integers
        of an unknown scale.
    """
    return read_content(path, channels, size, decoder).values


def read_content(
    path: Path | BinaryIO, channels: int, size: Pixels | None = None, decoder: Decoder = "turbo"
) -> ImageContent:
    """Reads an image as `read_image` does."""
    if isinstance(path, Path) and path.suffix.lower() == ".npy":
        array = read_image_array(path)
        _require_channels(array.shape[-1], channels)
        return _scaled(array)
    with _reading(path, "an image"):
        file = in_memory(path, decoder)
        bands = read_bands(file, upright=True, most=MOST_PIXELS) if is_tiff(file) else None
        if bands is not None:
            content = _scaled(bands.values, bands.bits)
            return _select(content, channels, bands.has_alpha, is_blended=False)
        return _read_picture(file, channels, size, decoder)


def _read_picture(
    path: Path | BinaryIO, channels: int, size: Pixels | None, decoder: Decoder
) -> ImageContent:
    """Reads an image by Pillow, or a JPEG by another decoder."""
    with open_image(path) as file:
        require_one_picture(file)
        width, height = file.size
        reduce(file, size, decoder)
        if is_deep(file):
            values = read_deep(path, file, upright=True)
            return _select(_scaled(values), channels, has_alpha=True, is_blended=True)
        pixels = decode(file, path, decoder)
        orientation = file.getexif().get(ORIENTATION, 1)
        full = (width, height) if orientation in TURNED else (height, width)
        if pixels is not None and orientation == 1 and pixels.shape[-1] == channels:
            return ImageContent(pixels, True, full)
        image: Image.Image = file
        if pixels is not None:
            image = Image.fromarray(pixels.squeeze(-1) if file.mode == "L" else pixels)
            image.info = file.info
        image = image if orientation == 1 else ImageOps.exif_transpose(image)
        if channels in (1, 3):
            mode = {1: "L", 3: "RGB"}[channels]
            image = flatten_transparency(image)
            image = image if image.mode == mode else image.convert(mode)
        _require_channels(len(image.getbands()), channels)
        values = np.asarray(image).reshape(*image.size[::-1], channels)
        return _scaled(values)._replace(size=full)


def _scaled(values: Num[np.ndarray, "H W C"], bits: int | None = None) -> ImageContent:
    """Returns values of `bits` bits, default those of their type, in 0..255."""
    kind, bits = values.dtype.kind, bits or 8 * values.dtype.itemsize
    size = values.shape[:2]
    if kind == "b":
        return ImageContent(values.astype(np.uint8) * np.uint8(255), True, size)
    if kind == "f":
        if not np.isfinite(values).all():
            raise ValueError("has pixels that are NaN or infinite")
        return ImageContent(values.astype(np.float32), False, size)
    if values.dtype == np.uint8 and bits == 8:
        return ImageContent(values, True, size)
    if kind == "u" and bits <= 16:
        return ImageContent(values.astype(np.float32) / np.float32((2**bits - 1) / 255), True, size)
    low, high = int(values.min()), int(values.max())
    if low < 0 or high > 255:
        raise ValueError(
            f"values of type {values.dtype} in {low}..{high}, of which black and white are not "
            "known; save uint8, uint16 (white is 65535) or, to use them as they are, float32"
        )
    return ImageContent(values.astype(np.float32), True, size)


def _select(
    content: ImageContent, channels: int, has_alpha: bool, *, is_blended: bool
) -> ImageContent:
    """Returns the requested number of channels; transparency is blended, or must be opaque."""
    values = content.values
    count = values.shape[-1]
    if has_alpha and count in (2, 4) and channels in (1, 3) and content.is_scaled:
        opacity = values[..., -1:]
        if (opacity == 255).all():
            values = values[..., :-1]
        elif is_blended:
            values = 255 + (values[..., :-1] - 255) * (opacity / np.float32(255))
    if (values.shape[-1], channels) == (1, 3):
        values = np.repeat(values, 3, -1)
    elif (values.shape[-1], channels) == (3, 1):
        values = (values @ LUMA)[..., None]
    _require_channels(values.shape[-1], channels)
    return content._replace(values=values)


def _require_channels(count: int, channels: int) -> None:
    if count != channels:
        raise ValueError(
            f"has {count} channels, not {channels}; channels={count} reads all of them"
        )


def image_size(path: Path | BinaryIO) -> Pixels:
    """Returns height and width of an image without decoding it."""
    if not isinstance(path, Path):
        return _image_size(path)
    with _reading(path, "an image"):
        stat = path.stat()
    return _size_of_version(path, stat.st_mtime_ns, stat.st_size)


@functools.lru_cache(maxsize=2**18)  # sources, checks and predictions ask for the same files
def _size_of_version(path: Path, mtime_ns: int, num_bytes: int) -> Pixels:
    """Returns the size of an image in a file with this time and length."""
    return _image_size(path)


def _image_size(path: Path | BinaryIO) -> Pixels:
    if isinstance(path, Path) and path.suffix.lower() == ".npy":
        height, width, _ = _as_image(_map_npy(path)).shape
        return height, width
    with _reading(path, "an image"):
        if is_tiff(path):
            return inspect(path, MOST_PIXELS).size
        with open_image(path) as image:
            is_turned = image.getexif().get(ORIENTATION, 1) in TURNED
            width, height = image.size[::-1] if is_turned else image.size
    return height, width


def read_map(
    path: Path | BinaryIO, *, is_lossy: bool = False, has_colors: bool = False
) -> np.ndarray:
    """Reads a dense label as it is stored: npy, or an image with palette indices and all bits.

    Args:
      is_lossy: Accept JPEG, whose compression changes values.
      has_colors: Return the colors of a palette instead of its indices.
    """
    if isinstance(path, Path) and path.suffix.lower() == ".npy":
        return read_npy(path)
    with _reading(path, "an image"):
        bands = read_bands(path, upright=False, most=MOST_PIXELS) if is_tiff(path) else None
        if bands is not None:
            return bands.values[..., 0] if bands.values.shape[-1] == 1 else bands.values
        with open_image(path) as image:
            require_one_picture(image)
            if image.format in ("JPEG", "MPO") and not is_lossy:
                raise ValueError("a JPEG, whose compression changes the values; save it as PNG")
            if is_deep(image):
                values = read_deep(path, image, upright=False)
                return values[..., 0] if values.shape[-1] == 1 else values
            if has_colors and image.mode in ("P", "PA"):
                return np.asarray(image.convert("RGBA" if image.has_transparency_data else "RGB"))
            return np.asarray(image)


def read_label_map(task: Task, path: Path | BinaryIO) -> np.ndarray:
    """Reads a dense label of a task as it is stored."""
    colors = bool(getattr(task, "colors", ()))
    return read_map(path, is_lossy=task.accepts_lossy_files, has_colors=colors)


def storage_format(path: Path | BinaryIO) -> str:
    """Returns the number format of a label file, read without decoding it."""
    if isinstance(path, Path) and path.suffix.lower() == ".npy":
        return f"an array of {_map_npy(path).dtype}"
    with _reading(path, "an image"):
        if is_tiff(path):
            return f"an image of {inspect(path, MOST_PIXELS).dtype}"
        with open_image(path) as image:
            return f"an image of mode {image.mode}"


def read_image_array(path: Path) -> Num[np.ndarray, "H W C"]:
    """Reads an image in an array file, in the type of the file."""
    return np.array(_as_image(_map_npy(path)))


def _as_image(array: np.ndarray) -> Num[np.ndarray, "H W C"]:
    if array.ndim not in (2, 3) or 0 in array.shape or array.dtype.kind not in "buif":
        raise ValueError(f"an array of {form(array)}; must be numbers [H, W] or [H, W, C]")
    return array[..., None] if array.ndim == 2 else array


def read_npy(path: Path) -> np.ndarray:
    """Reads an array file."""
    return np.array(_map_npy(path))


def _map_npy(path: Path) -> np.ndarray:
    try:
        return bounded_reading.read_npy(path)
    except (OSError, ValueError) as error:
        raise ValueError(f"cannot be read as an array: {_reason(error, path)}") from None


@contextlib.contextmanager
def _reading(path: Path | BinaryIO, what: str) -> Iterator[None]:
    """Context that turns the exceptions of readers of damaged files into ValueError."""
    try:
        yield
    except ValueError:
        raise
    except Exception as error:
        raise ValueError(f"cannot be read as {what}: {_reason(error, path)}") from None


def _reason(error: Exception, path: Path | BinaryIO) -> str:
    if isinstance(error, UnidentifiedImageError):
        return "its format is not known"
    text = " ".join(str(error).split()).replace(repr(str(path)), "it").replace(str(path), "it")
    return shortened(text, 200) or type(error).__name__
