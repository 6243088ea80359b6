"""Annotations of images, in the terms of COCO files, into which other formats are converted."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from mtljax.tasks.warps import Pixels
from mtljax.utils.bounded_reading import read_text

Annotation = Mapping[str, Any]
"""Object, as in a COCO file and not validated: `category_id`, and `bbox` [x, y, width, height],
`segmentation`, `keypoints` [x, y, v, ...] or `iscrowd`."""


class AnnotatedImage(NamedTuple):
    """Size and objects of an image."""

    size: Pixels
    """Height and width in pixels."""
    annotations: tuple[Annotation, ...]
    """Objects in the image."""
    place: str
    """File, and image in it, for messages."""


@dataclasses.dataclass(frozen=True)
class AnnotationSet:
    """Images with annotations.

    Attributes:
      path: File or folder with the annotations.
      images: File name, with forward slashes -> image.
      categories: Id -> name, in the order of the classes.
      keypoints: Names of the points of an object; empty if unknown.
      faults: File name -> reason why the image's annotations cannot be used.
      noun: Word for an annotation in messages.
    """

    path: Path
    images: Mapping[str, AnnotatedImage]
    categories: Mapping[Any, str]
    keypoints: tuple[str, ...] = ()
    faults: Mapping[str, str] = dataclasses.field(default_factory=dict)
    noun: str = "annotation"

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the categories, in their order; equal names once."""
        return tuple(dict.fromkeys(self.categories.values()))

    @property
    def has_objects(self) -> bool:
        """True if an image has annotations; else its images are not labeled."""
        return any(image.annotations for image in self.images.values())


def text_lines(path: Path) -> list[str]:
    """Returns the lines of a text file in UTF-8; raises ValueError if it is no such file."""
    try:
        return read_text(path).removeprefix("\ufeff").splitlines()
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror}") from None
    except ValueError:
        raise ValueError(f"{path} is not a text file in UTF-8") from None
