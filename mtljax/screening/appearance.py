"""Detection of dark, light, blurred and oddly shaped images by cleanvision."""

import contextlib
import io
import warnings
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Num

from mtljax.data.base import Source
from mtljax.data.pool import ExampleId, Pool
from mtljax.screening.findings import Finding

if TYPE_CHECKING:
    from PIL.Image import Image

KIND_OF_ISSUE = {
    "dark": "dark",
    "light": "light",
    "blurry": "blurry",
    "low_information": "low information",
    "odd_size": "odd size",
    "odd_aspect_ratio": "odd aspect ratio",
}
"""Name in cleanvision -> kind of finding."""
MIN_SIDE = 32
"""Pixels; cleanvision's thresholds are meant for photos and do not fit smaller images."""
COMMON = 0.05
"""Fraction of all images above which an issue is a property of the data, as of a night camera."""


class _PilImages:
    """Pool in the format of a torchvision data set: tuples that contain a PIL image."""

    def __init__(self, pool: Pool, source: Source):
        self.pool, self.low, self.high = pool, source.low, source.high

    def __len__(self) -> int:
        return len(self.pool)

    def __getitem__(self, index: int) -> "tuple[Image]":
        return (to_pil(self.pool[index]["image"], self.low, self.high),)


def to_pil(image: Num[np.ndarray, "H W C"], low: float, high: float) -> "Image":
    """Converts an image to PIL: RGB if it has three channels, otherwise its first one in gray.

    Values low..high become 0..255, unless they are uint8; NaN becomes black.
    """
    from PIL import Image

    pixels = np.asarray(image)
    if pixels.dtype != np.uint8:
        scaled = (pixels.astype(np.float64) - low) / (high - low)
        pixels = np.round(255 * np.clip(np.nan_to_num(scaled), 0, 1)).astype(np.uint8)
    return Image.fromarray(pixels if pixels.shape[-1] == 3 else pixels[..., 0])


def find_odd_images(source: Source, places: Sequence[ExampleId]) -> Iterator[Finding]:
    """Finds images of unusual appearance among the given examples."""
    pool = Pool(source.splits(), places)
    if not places or min(np.shape(pool[0]["image"])[:2]) < MIN_SIDE:
        return
    from cleanvision import Imagelab

    output = io.StringIO()
    with (
        warnings.catch_warnings(action="ignore"),
        contextlib.redirect_stdout(output),
        contextlib.redirect_stderr(output),
    ):
        lab = Imagelab(torchvision_dataset=_PilImages(pool, source))
        lab.find_issues({name: {} for name in KIND_OF_ISSUE}, n_jobs=1, verbose=False)
    for name, kind in KIND_OF_ISSUE.items():
        rows = np.flatnonzero(lab.issues[f"is_{name}_issue"])
        if 0 < len(rows) <= max(1, COMMON * len(places)):
            for row in rows:
                score = lab.issues[f"{name}_score"].iloc[row]
                yield Finding(places[int(row)], kind, f"score {score:.2f} (0 is worst)")
