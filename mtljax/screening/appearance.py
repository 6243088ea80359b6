"""How images look: dark, light, blurred, of odd size, by cleanvision."""

import contextlib
import io
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from mtljax.data.base import Source
from mtljax.data.pool import Place, Pool
from mtljax.screening.findings import Finding

NAMES = {
    "dark": "dark",
    "light": "light",
    "blurry": "blurry",
    "low_information": "low information",
    "odd_size": "odd size",
    "odd_aspect_ratio": "odd aspect ratio",
}
"""cleanvision's kinds -> ours."""
SMALLEST = 32
"""Pixels: what blurred and dark mean was set for photos, and says nothing of smaller images."""
COMMON = 0.05
"""Share of the images from which a look is the data's own, as in a night camera's, and no fault."""


class _Pictures:
    """A pool as cleanvision reads data sets: a tuple with a PIL image in it."""

    def __init__(self, pool: Pool, source: Source):
        self.pool, self.low, self.high = pool, source.low, source.high

    def __len__(self) -> int:
        return len(self.pool)

    def __getitem__(self, index: int) -> tuple[Any]:
        from PIL import Image

        return (Image.fromarray(as_bytes(self.pool[index]["image"], self.low, self.high)),)


def as_bytes(image: Any, low: float, high: float) -> np.ndarray:
    """An image for people: [H, W] or [H, W, 3], 0..255; what is not finite is black."""
    image = np.asarray(image)
    if image.dtype != np.uint8:
        share = (image.astype(np.float64) - low) / (high - low)
        image = np.round(255 * np.clip(np.nan_to_num(share), 0, 1)).astype(np.uint8)
    return image[..., 0] if image.shape[-1] != 3 else image


def appearance(source: Source, places: Sequence[Place]) -> Iterator[Finding]:
    """Images that look wrong among these."""
    pool = Pool(source.parts(), places)
    if not places or min(np.shape(pool[0]["image"])[:2]) < SMALLEST:
        return
    from cleanvision import Imagelab

    quiet = io.StringIO()
    with (
        warnings.catch_warnings(),
        contextlib.redirect_stdout(quiet),
        contextlib.redirect_stderr(quiet),
    ):
        warnings.simplefilter("ignore")
        lab = Imagelab(torchvision_dataset=_Pictures(pool, source))
        lab.find_issues({name: {} for name in NAMES}, n_jobs=1, verbose=False)
    for theirs, ours in NAMES.items():
        wrong = np.flatnonzero(lab.issues[f"is_{theirs}_issue"])
        if 0 < len(wrong) <= max(1, COMMON * len(places)):
            for row in wrong:
                score = lab.issues[f"{theirs}_score"].iloc[row]
                yield Finding(places[int(row)], ours, f"score {score:.2f} (0 is worst)")
