"""Detection of dark, light, blurred and oddly shaped images by cleanvision."""

import contextlib
import io
import warnings
from collections.abc import Sequence
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
COMMON = 0.01
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
    """Converts an image to PIL: its first three channels as RGB, or its first one in gray.

    Values low..high become 0..255, unless they are uint8; NaN becomes black.
    """
    from PIL import Image

    pixels = np.asarray(image)
    if pixels.dtype != np.uint8:
        scaled = (pixels.astype(np.float64) - low) / (high - low)
        pixels = np.round(255 * np.clip(np.nan_to_num(scaled), 0, 1)).astype(np.uint8)
    is_color = pixels.shape[-1] >= 3
    return Image.fromarray(np.ascontiguousarray(pixels[..., :3] if is_color else pixels[..., 0]))


def find_odd_images(source: Source, places: Sequence[ExampleId]) -> tuple[list[Finding], list[str]]:
    """Finds images of unusual appearance, and returns remarks on what is too common to list."""
    pool = Pool(source.splits(), places)
    findings: list[Finding] = []
    remarks: list[str] = []
    if not places or min(np.shape(pool[0]["image"])[:2]) < MIN_SIDE:
        return findings, remarks
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
        if len(rows) > max(1, COMMON * len(places)):
            share = 100 * len(rows) / len(places)
            remarks.append(
                f"{len(rows)} images ({share:.1f} %) have the finding {kind!r}: too common to list"
            )
            continue
        scores = lab.issues[f"{name}_score"]
        for row in sorted(map(int, rows), key=lambda row: float(scores.iloc[row])):
            detail = f"score {scores.iloc[row]:.2f} (0 is worst)"
            findings.append(Finding(places[row], kind, detail))
    return findings, remarks
