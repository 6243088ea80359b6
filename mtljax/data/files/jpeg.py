"""Decoding of JPEG files by libjpeg-turbo, with the pixels that Pillow returns."""

import io
from pathlib import Path
from types import ModuleType
from typing import BinaryIO, Literal

import numpy as np
from jaxtyping import UInt8
from PIL import ImageFile

from mtljax.tasks.warps import Pixels
from mtljax.utils import bounded_reading

Decoder = Literal["turbo", "turbo_scaled", "pillow"]
"""Decoder of JPEG files. turbo: libjpeg-turbo (package simplejpeg), with the pixels of pillow.
turbo_scaled: also reduces images by 2, 4 or 8 while decoding them, down to the requested size.
pillow: Pillow."""
EXTENSIONS = (".jpg", ".jpeg")
"""Extensions of JPEG files."""
COLORS = {"L": "GRAY", "RGB": "RGB"}
"""Mode of Pillow -> color space of simplejpeg."""


def require_decoder(decoder: Decoder) -> ModuleType | None:
    """Imports and returns the package of a decoder, None if it is Pillow.

    Raises:
      ValueError: The package is not installed.
    """
    if decoder == "pillow":
        return None
    try:
        import simplejpeg  # lazy: runs on other data do not need it
    except ImportError:
        raise ValueError(
            f"data.decoder={decoder} needs the package simplejpeg: pip install simplejpeg, or "
            "choose --data.decoder pillow, which is slower"
        ) from None
    return simplejpeg


def decoder_version(decoder: Decoder) -> str:
    """Returns the decoder with its version, for the identity of decoded pixels."""
    from PIL import __version__, features

    package = require_decoder(decoder)
    pillow = f"Pillow {__version__}, libjpeg-turbo {features.version('libjpeg_turbo')}"
    return f"{decoder}: {pillow}" + ("" if package is None else f", {package.__version__}")


def in_memory(path: Path | BinaryIO, decoder: Decoder) -> Path | BinaryIO:
    """Returns the file with its content in memory if it is a JPEG, by its name, for libjpeg-turbo.

    The file is then read once, by its header and by its pixels.
    """
    if decoder == "pillow" or not isinstance(path, Path) or path.suffix.lower() not in EXTENSIONS:
        return path
    bounded_reading.check_regular(path)
    return io.BytesIO(path.read_bytes())


def reduce(file: ImageFile.ImageFile, size: Pixels | None, decoder: Decoder) -> None:
    """Sets the reduced size at which a large JPEG is decoded, for an image of height and width."""
    if size is not None:
        factor = 1 if decoder == "turbo_scaled" else 2
        file.draft(None, (factor * size[1], factor * size[0]))


def decode(
    file: ImageFile.ImageFile, content: Path | BinaryIO, decoder: Decoder
) -> UInt8[np.ndarray, "H W C"] | None:
    """Decodes an opened JPEG; returns None for an image that Pillow has to decode.

    These are other formats and color spaces, and damaged files, of which Pillow reports the fault.

    Args:
      file: The opened image, at its reduced size.
      content: Its file, which must be in memory.
    """
    package = require_decoder(decoder)
    if package is None or not isinstance(content, io.BytesIO):
        return None
    if file.format != "JPEG" or file.mode not in COLORS:
        return None
    width, height = file.size
    try:  # getvalue, as the position is Pillow's
        pixels = package.decode_jpeg(
            content.getvalue(), colorspace=COLORS[file.mode], min_height=height, min_width=width
        )
    except ValueError:
        return None
    return pixels if pixels.shape[:2] == (height, width) else None
