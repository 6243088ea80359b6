"""Reader of the annotation files of Pascal VOC: one XML file per image."""

import codecs
import re
from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree

from mtljax.data.annotations.base import Annotation, text_lines
from mtljax.data.annotations.boxes import finite
from mtljax.data.notes import NoteCounter
from mtljax.tasks.warps import Pixels
from mtljax.utils.bounded_reading import read_bytes
from mtljax.utils.text import normalized

SIDES = ("xmin", "ymin", "xmax", "ymax")
"""Elements of a bounding box."""


class VocObjects(NamedTuple):
    """Objects of an image, with their names as categories, and the size in the file, if any."""

    size: Pixels | None
    """Height and width in pixels; None if the file has none."""
    annotations: tuple[Annotation, ...]
    """Objects in the image."""


def read_voc_file(path: Path, first: int, difficult: bool, notes: NoteCounter) -> VocObjects:
    """Reads an annotation file.

    Args:
      first: 1 if pixels count from 1 and boxes include the last one, as in VOC; 0 if boxes are
        edges that count from 0.
      difficult: True to retain objects that are marked as difficult; `notes` counts them.

    Raises:
      ValueError: The file or an object is invalid.
    """
    root = _parse(path)
    size = root.find("size")
    sides = [_whole(size.findtext(side)) if size is not None else 0 for side in ("height", "width")]
    annotations: list[Annotation] = []
    for number, part in enumerate(root.iterfind("object"), 1):
        place = f"{path}, object {number}"
        name = normalized(part.findtext("name") or "")
        if not name:
            raise ValueError(f"{path}: object {number}: must have a name")
        if normalized(part.findtext("difficult") or "0") not in ("0", ""):
            if not difficult:
                notes.add("dropped", "difficult objects", place)
                continue
            what = "difficult objects to ordinary ones (difficult=false drops them)"
            notes.add("converted", what, place)
        box = part.find("bndbox")
        try:
            low_x, low_y, high_x, high_y = finite(
                None if box is None else box.findtext(side) for side in SIDES
            )
        except ValueError:
            message = f"must have bndbox with the numbers {', '.join(SIDES)}"
            raise ValueError(f"{path}: object {number}: {message}") from None
        if first and min(low_x, low_y) < first:
            what = "a box starts at 0: if the coordinates of the files count from 0, set first=0"
            notes.add("warning", what, place)
        corner = [low_x - first, low_y - first]
        extent = [high_x - low_x + first, high_y - low_y + first]
        annotations.append({"id": number, "category_id": name, "bbox": [*corner, *extent]})
    return VocObjects((sides[0], sides[1]) if all(sides) else None, tuple(annotations))


def _parse(path: Path) -> ElementTree.Element:
    """Parses a file; entities, which may expand without bounds, are refused."""
    try:
        text = _decoded(path)
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror}") from None
    except UnicodeError as error:
        encoding = getattr(error, "encoding", "").upper() or "the declared encoding"
        raise ValueError(f"{path} is not encoded in {encoding}") from None
    except LookupError:
        raise ValueError(f"{path} declares an encoding that is not known") from None
    if "<!DOCTYPE" in text or "<!ENTITY" in text:
        raise ValueError(f"{path} has a document type declaration, which is not accepted")
    try:
        root = ElementTree.fromstring(text)
    except (ElementTree.ParseError, ValueError, RecursionError) as error:
        raise ValueError(f"{path} is not valid XML: {str(error)[:80]}") from None
    if root.tag != "annotation":
        raise ValueError(f"{path} is not an annotation of Pascal VOC: its root is not <annotation>")
    return root


def _decoded(path: Path) -> str:
    """Returns the text of a file, by its byte order mark, its XML declaration, or as UTF-8."""
    content = read_bytes(path)
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return content.decode("utf-16")
    declared = re.match(rb"""\s*<\?xml[^>]*\sencoding\s*=\s*["']([\w.-]+)""", content)
    return content.decode(declared[1].decode() if declared else "utf-8-sig")


def _whole(text: str | None) -> int:
    """Returns a length in pixels; 0 if it is invalid, as in files of some tools."""
    try:
        (value,) = finite([text])
    except ValueError:
        return 0
    return int(value) if 0 < value < 2**31 and value == int(value) else 0


def read_image_set(path: Path) -> tuple[str, ...]:
    """Reads the names of images in a file of ImageSets: the first word of each line."""
    return tuple(normalized(line.split()[0]) for line in text_lines(path) if line.split())
