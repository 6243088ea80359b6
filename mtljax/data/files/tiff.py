"""Reader of TIFF files that Pillow reads incompletely: more bands, more bits, floating point."""

import contextlib
import importlib.util
import logging
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
from jaxtyping import Num

from mtljax.tasks.warps import Pixels
from mtljax.utils import bounded_reading
from mtljax.utils.text import first_line

MAX_PAGES = 10000
"""Maximum number of pages of a TIFF that are counted."""
MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
"""First bytes of a TIFF and of a BigTIFF, in both byte orders."""
ALPHA = (1, 2)
"""Values of ExtraSamples for transparency; other values are bands of any meaning."""
INVERTED, GRAY, RGB, PALETTE, CMYK, YCBCR = 0, 1, 2, 3, 5, 6
"""Values of PhotometricInterpretation."""
NONE, DEFLATE, PACKBITS, OLD_DEFLATE = 1, 8, 32773, 32946
"""Values of Compression that need no further package."""


class Bands(NamedTuple):
    """All bands of a TIFF."""

    values: Num[np.ndarray, "H W C"]
    """Pixels of all bands."""
    bits: int
    """Bits per value."""
    has_alpha: bool
    """True if the file declares its last band as transparency."""


def is_tiff(path: Path | BinaryIO) -> bool:
    """True if the content of a file is a TIFF; the position of an open file is preserved."""
    if isinstance(path, Path):
        bounded_reading.check_regular(path)
        with path.open("rb") as file:
            return file.read(4) in MAGIC
    start = path.read(4)
    path.seek(-len(start), 1)
    return start in MAGIC


def read_bands(path: Path | BinaryIO, *, upright: bool, most: int) -> Bands | None:
    """Reads a TIFF; returns None for one that Pillow reads without a loss.

    Args:
      upright: Apply the orientation.
      most: Maximum number of pixels.

    Raises:
      ValueError: The file is damaged, has several pages, or needs a decoder that is not installed.
    """
    with _opened(path, most) as (file, page):
        if _is_plain(page):
            return None
        _check_decoding(page, file.filehandle)
        return _bands(page, upright)


class Info(NamedTuple):
    """Size and type of a TIFF, by its tags."""

    size: Pixels
    """Height and width in the right orientation."""
    dtype: str
    """NumPy type of the pixels."""


def inspect(path: Path | BinaryIO, most: int) -> Info:
    """Reads the tags of a TIFF; raises ValueError as `read_bands`."""
    with _opened(path, most) as (_, page):
        size = page.imagelength, page.imagewidth
        return Info(size[::-1] if _orientation(page) >= 5 else size, str(page.dtype))


@contextlib.contextmanager
def _opened(path: Path | BinaryIO, most: int) -> Iterator[tuple[Any, Any]]:
    """Opens a TIFF and its only page."""
    import tifffile

    logging.getLogger("tifffile").setLevel(logging.CRITICAL)  # it logs what it raises
    try:
        with tifffile.TiffFile(path) as file:
            page = _only_page(file)
            if not (page.imagelength and page.imagewidth):
                raise ValueError("a TIFF without pixels")
            if page.imagelength * page.imagewidth > most:
                size = f"{page.imagelength} x {page.imagewidth}"
                raise ValueError(f"an image of {size} pixels; at most {most} are decoded")
            yield file, page
    except tifffile.TiffFileError as error:
        raise OSError(str(error)) from None
    except (ValueError, OSError):
        raise
    except Exception as error:  # tifffile raises anything on damaged files
        raise OSError(f"{type(error).__name__}: {first_line(error)}") from None
    finally:
        if not isinstance(path, Path):
            path.seek(0)


def _only_page(file: Any) -> Any:
    """Returns the page of a file; previews and masks of it are no pages."""
    pages = []
    for number, page in enumerate(file.pages):
        if number == MAX_PAGES:  # a damaged file may refer to one page without end
            raise ValueError(f"a TIFF of more than {MAX_PAGES} pages")
        if not int(page.subfiletype) & 0b101:
            pages.append(page)
    planes = int((file.imagej_metadata or {}).get("images", 1)) if file.is_imagej else 1
    if not pages:
        raise ValueError("a TIFF without an image")
    if max(len(pages), planes) > 1:
        raise ValueError(
            f"a TIFF of {max(len(pages), planes)} pages; save the page to use as a file of its "
            "own, or pages that are bands as npy [H, W, C]"
        )
    return pages[0]


def _is_plain(page: Any) -> bool:
    """True for images that Pillow reads with all bands and all bits."""
    bits, kind, bands = int(page.bitspersample), int(page.sampleformat), page.samplesperpixel
    photometric = int(page.photometric)
    if photometric == GRAY and bands == 1 and (bits, kind) in ((16, 1), (32, 3)):
        return True
    expected = {INVERTED: 1, GRAY: 1, PALETTE: 1, RGB: 3, YCBCR: 3, CMYK: 4}.get(photometric)
    return bands == expected and kind == 1 and (bits == 8 or (bits < 8 and bands == 1))


def _check_decoding(page: Any, file: Any) -> None:
    """Raises ValueError for a codec that is missing, or data that unpacks to more than it is."""
    compression = int(page.compression)
    is_simple = compression in (NONE, PACKBITS, DEFLATE, OLD_DEFLATE)
    if not is_simple and importlib.util.find_spec("imagecodecs") is None:
        raise ValueError(
            f"a TIFF of {page.samplesperpixel} bands of {page.bitspersample} bits with compression "
            f"{page.compression.name}, which needs `pip install imagecodecs`"
        )
    bounded_reading.check_bytes(page.nbytes, file.size)
    if compression in (DEFLATE, OLD_DEFLATE):
        limit = int(np.prod(page.chunks or page.shape)) * page.dtype.itemsize
        for offset, count in zip(page.dataoffsets, page.databytecounts, strict=True):
            file.seek(offset)
            if len(zlib.decompressobj().decompress(file.read(count), limit + 1)) > limit:
                raise ValueError("a TIFF that unpacks to more than its size")


def _bands(page: Any, upright: bool) -> Bands:
    values = page.asarray()
    if page.axes == "YX":
        values = values[..., None]
    elif page.axes == "SYX":
        values = np.moveaxis(values, 0, -1)
    elif page.axes != "YXS":
        raise ValueError(f"a TIFF with the axes {page.axes}; must be an image")
    if int(page.photometric) == INVERTED and values.dtype.kind == "u":
        values = values.dtype.type(2**page.bitspersample - 1) - values
    values = _turned(values, _orientation(page)) if upright else values
    extra = tuple(map(int, page.extrasamples or ()))
    return Bands(values, int(page.bitspersample), bool(extra) and extra[-1] in ALPHA)


def _orientation(page: Any) -> int:
    tag = page.tags.get(274)
    return 1 if tag is None else int(tag.value)


def _turned(values: Num[np.ndarray, "H W C"], orientation: int) -> Num[np.ndarray, "h w C"]:
    """Applies an orientation in 1..8, as EXIF defines it."""
    values = values.swapaxes(0, 1) if orientation >= 5 else values
    rows = -1 if orientation in (3, 4, 7, 8) else 1
    columns = -1 if orientation in (2, 3, 6, 7) else 1
    return values[::rows, ::columns]
