"""Decoding of image files by Pillow, with all bits."""

from pathlib import Path
from typing import BinaryIO

import numpy as np
from jaxtyping import Num
from PIL import Image, ImageFile, ImageOps, PngImagePlugin

from mtljax.utils import bounded_reading

FORMATS = ("PNG", "JPEG", "MPO", "BMP", "GIF", "TIFF", "WEBP", "PPM")
"""Formats of images that are read, by the names that Pillow uses."""
MOST_PIXELS = 80_000_000
"""Maximum number of pixels; Pillow treats larger images as decompression bombs."""
RAW_MODES = {
    "RGB;16B": ("RGB;16B", "RGB;16L"),
    "RGBA;16B": ("RGBA;16B", "RGBA;16L"),
    "LA;16B": ("RGBA",),
}
"""Modes by which Pillow, which decodes 8 of 16 bits, returns the high and the low bytes of a PNG.
Two channels of 16 bits are read as four of 8."""


def open_image(path: Path | BinaryIO) -> ImageFile.ImageFile:
    """Opens an image file without decoding its pixels.

    Only formats with a decoder in this process are allowed: for formats such as PostScript, Pillow
    starts programs that execute the content of the file. Pillow raises many types of exception for
    a damaged file or one that is not an image.
    """
    if isinstance(path, Path):
        bounded_reading.check_regular(path)
    else:
        path.seek(0)
    Image.init()
    image = Image.open(path, formats=[name for name in FORMATS if name in Image.OPEN])
    if image.width * image.height > MOST_PIXELS:
        image.close()
        raise ValueError(
            f"an image of {image.height} x {image.width} pixels; at most {MOST_PIXELS} are decoded"
        )
    return image


def require_one_picture(file: ImageFile.ImageFile) -> None:
    """Raises ValueError for animations; the second picture of an MPO is a preview."""
    count = getattr(file, "n_frames", 1)
    if count > 1 and file.format != "MPO":
        raise ValueError(
            f"a {file.format} of {count} frames; save the frame to use as a file of its own"
        )


def is_deep(file: ImageFile.ImageFile) -> bool:
    """True for a file with more than 8 bits per channel."""
    if isinstance(file, PngImagePlugin.PngImageFile):
        return ";16" in str(file.tile[0][3])
    arguments = file.tile[0][3] if file.format == "PPM" and file.mode == "RGB" else ()
    if isinstance(arguments, tuple) and arguments and arguments[-1] > 255:
        raise ValueError("a PPM of more than 8 bits per channel; save it as PNG")
    return file.mode.startswith(("I", "F"))


def read_deep(
    path: Path | BinaryIO, file: ImageFile.ImageFile, *, upright: bool
) -> Num[np.ndarray, "H W C"]:
    """Decodes a file with more than 8 bits per channel; 16 bits are uint16."""
    turn = ImageOps.exif_transpose if upright else lambda image: image
    if "transparency" in file.info:
        raise ValueError("a transparent color in an image of 16 bits; save it with 8 bits")
    raw = str(file.tile[0][3]) if file.format == "PNG" else ""
    if raw not in RAW_MODES:
        values = np.asarray(turn(file))[..., None]
        is_16_bits = file.mode.startswith("I;16") or file.format in ("PNG", "PPM")
        return values.astype(np.uint16) if is_16_bits and values.dtype.kind != "f" else values
    parts = []
    for mode in RAW_MODES[raw]:
        with open_image(path) as again:
            again.tile = [(*again.tile[0][:3], mode)]  # type: ignore[list-item]
            parts.append(np.asarray(turn(again)).astype(np.uint16))
    high, low = parts if len(parts) == 2 else (parts[0][..., ::2], parts[0][..., 1::2])
    return high * np.uint16(256) + low


def flatten_transparency(image: Image.Image) -> Image.Image:
    """Returns the image on a white background: colors of transparent pixels are arbitrary."""
    if not image.has_transparency_data:
        return image
    return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image.convert("RGBA"))
