"""One picture of a whole run, for a README or a slide."""

from collections.abc import Sequence

from matplotlib.figure import Figure
from PIL import Image

from mtljax.report.figures import Picture, pixels, to_png

_COLUMNS, _COLUMN, _GAP, _DPI = 3, 450, 16, 100
_WIDTH = _COLUMNS * _COLUMN + (_COLUMNS + 1) * _GAP
_HEADING = 80


def overview(heading: str, below: str, pictures: Sequence[Picture]) -> Picture:
    """Pictures in three columns, filled row by row, under a heading.

    They are scaled down as they are rather than drawn anew, which would double the time.
    """
    images = [_fitted(p.image) for p in pictures]
    rows = [images[i : i + _COLUMNS] for i in range(0, len(images), _COLUMNS)]
    heights = [max(image.height for image in row) for row in rows]
    whole = Image.new("RGB", (_WIDTH, _HEADING + sum(heights) + _GAP * (len(rows) + 1)), "white")
    whole.paste(_heading(heading, below), (0, 0))
    top = _HEADING + _GAP
    for row, height in zip(rows, heights, strict=True):
        for column, image in enumerate(row):
            whole.paste(image, (_GAP + column * (_COLUMN + _GAP), top))
        top += height + _GAP
    return to_png("overview", heading, whole)


def _fitted(image: Image.Image) -> Image.Image:
    height = round(image.height * _COLUMN / image.width)
    return image.resize((_COLUMN, height), Image.Resampling.LANCZOS)


def _heading(heading: str, below: str) -> Image.Image:
    figure = Figure(figsize=(_WIDTH / _DPI, _HEADING / _DPI), dpi=_DPI)
    room = 92
    shown = heading if len(heading) <= room else heading[: room - 1] + "…"
    figure.text(0.018, 0.8, shown, va="top", fontsize=16, fontweight="bold")
    figure.text(0.018, 0.36, below, va="top", fontsize=10.5, color="#4a515e")
    return pixels(figure)
