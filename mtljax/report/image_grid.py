"""Grids of images with captions, row labels, a title and a legend, drawn with Pillow."""

import dataclasses
import functools
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import matplotlib
import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageDraw, ImageFont

from mtljax.report.figures import GRAY, INK, TITLE_SIZE, Plot, wrap_title

Pixels = UInt8[np.ndarray, "h w 3"]
"""RGB image."""
Legend = Sequence[tuple[str, UInt8[np.ndarray, "3"]]]
"""Meaning of colors: (text, RGB)."""

FONT = 8.5
"""Size of captions, in points."""
LINE = 1.25 * FONT / 72
"""Height of a line, in inches."""
GAP = 0.08
"""Distance between images, in inches."""
ROW_LABEL = 0.95
"""Inches, except the font size in points."""
MAX_LINES = 12
"""Maximum number of lines of a caption."""
_RED = "#b3261e"
_FEW_PIXELS = 64
"""Smaller images are enlarged without interpolation."""


class Caption(NamedTuple):
    """Caption of an image: `name: label → prediction`; empty and missing parts are left out."""

    name: str
    """Name of the task."""
    label: str
    """Label as text."""
    prediction: str | None = None
    """Prediction as text."""
    is_wrong: bool = False
    """True to highlight the prediction of another class."""

    def lines(self, width: float) -> list[str]:
        """Returns lines of at most `width` inches: one, or several if it is too long."""
        room = width * 72 / FONT
        first = f"{self.name}: {self.label}" if self.name else self.label
        second = "" if self.prediction is None else f"→ {self.prediction}"
        line = f"{first} {second}".strip()
        if _ems(line, self.is_wrong) <= room:
            return [line]
        wrapped = [part for text in (first, second) for part in _wrap(text, room, self.is_wrong)]
        if len(wrapped) > MAX_LINES:
            wrapped = [*wrapped[: MAX_LINES - 1], _cut(wrapped[MAX_LINES - 1] + "…", room)]
        return wrapped


class GridCell(NamedTuple):
    """Image with captions below it."""

    image: Pixels | None
    """None: empty."""
    captions: Sequence[Caption] = ()
    """Lines below the image."""


_LegendItem = tuple[float, str, UInt8[np.ndarray, "3"]]
"""Left edge, text, color."""


class _Row(NamedTuple):
    cells: Sequence[GridCell]
    top: float
    image_height: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class ImageGrid:
    """Images in rows of equal columns; sizes in inches."""

    cells: Sequence[GridCell]
    """Row by row."""
    columns: int
    """Number of columns."""
    width: float
    """Width of the grid."""
    row_labels: Sequence[str] = ()
    """Labels left of the rows."""
    part_labels: Sequence[str] = ()
    """Labels above the first row, for equal parts of each image."""
    legend: Legend = ()
    """Colors and their meanings, below the images."""
    subtitle: str = ""
    """Line below the title."""
    title_size: float = TITLE_SIZE
    """Points."""
    dpi: int = 150
    """Pixels per inch."""

    def render(self, name: str, title: str) -> Plot:
        """Renders the grid below its title; `name` is the file name without suffix."""
        titles = wrap_title(title, self.width - 2 * GAP, self.title_size)
        title_line = 1.3 * self.title_size / 72
        top = len(titles) * title_line + 2 * GAP + LINE * 1.8 * bool(self.subtitle)
        rows, bottom = self._rows(top)
        legend = self._legend_lines()
        size = self._px(self.width), self._px(bottom + len(legend) * LINE)
        image = Image.new("RGB", size, "white")
        draw = ImageDraw.Draw(image)
        for i, line in enumerate(titles):
            place = GAP, GAP + (i + 0.5) * title_line
            self._text(draw, place, line, size=self.title_size, bold=True)
        if self.subtitle:
            place = GAP, GAP + len(titles) * title_line + LINE
            self._text(draw, place, self.subtitle, size=TITLE_SIZE, color=GRAY)
        for row, label in zip(rows, self.row_labels or [""] * len(rows), strict=True):
            self._draw_row(image, draw, row, label)
        if self.part_labels:
            self._draw_part_labels(draw, rows[0])
        self._draw_legend(draw, legend, bottom)
        return Plot.encode(name, title, image)

    @property
    def _left(self) -> float:
        return ROW_LABEL if self.row_labels else GAP / 2

    @property
    def _cell_width(self) -> float:
        return (self.width - self._left - GAP / 2) / self.columns

    def _rows(self, top: float) -> tuple[list[_Row], float]:
        """Returns the rows below `top`, and the lower end of the last one."""
        rows = []
        width = self._cell_width - GAP
        top += LINE * bool(self.part_labels)
        for start in range(0, len(self.cells), self.columns):
            cells = self.cells[start : start + self.columns]
            shapes = [cell.image.shape for cell in cells if cell.image is not None]
            height = width * max((min(h / w, 1.5) for h, w, _ in shapes), default=0.0)
            rows.append(_Row(cells, top, height))
            lines = max(sum(len(c.lines(width)) for c in cell.captions) for cell in cells)
            top += height + lines * LINE + (1.5 if lines else 1.0) * GAP
        return rows, top

    def _draw_row(
        self, image: Image.Image, draw: ImageDraw.ImageDraw, row: _Row, label: str
    ) -> None:
        width = self._cell_width - GAP
        if label:
            room = (ROW_LABEL - GAP) * 72 / FONT
            text = "\n".join(part for line in label.split("\n") for part in _wrap(line, room))
            place = ROW_LABEL - GAP / 2, row.top + row.image_height / 2
            self._text(draw, place, text, anchor="rm")
        for column, cell in enumerate(row.cells):
            middle = self._left + (column + 0.5) * self._cell_width
            if cell.image is not None:
                pixels = self._scaled(cell.image, width, row.image_height)
                left = self._px(middle) - pixels.width // 2
                image.paste(pixels, (left, self._px(row.top)))
            y = row.top + row.image_height + GAP / 2 + LINE / 2
            for caption in cell.captions:
                color, bold = (_RED, True) if caption.is_wrong else (INK, False)
                for line in caption.lines(width):
                    self._text(draw, (middle, y), line, color=color, bold=bold, anchor="mm")
                    y += LINE

    def _scaled(self, pixels: Pixels, width: float, height: float) -> Image.Image:
        """Scales an image to fit into `width` x `height` inches."""
        image = Image.fromarray(pixels)
        scale = min(self._px(width) / image.width, self._px(height) / image.height)
        nearest = min(image.size) < _FEW_PIXELS
        method = Image.Resampling.NEAREST if nearest else Image.Resampling.LANCZOS
        size = max(1, round(image.width * scale)), max(1, round(image.height * scale))
        return image.resize(size, method)

    def _draw_part_labels(self, draw: ImageDraw.ImageDraw, row: _Row) -> None:
        width = self._cell_width - GAP
        for column in range(len(row.cells)):
            left = self._left + column * self._cell_width + GAP / 2
            for j, label in enumerate(self.part_labels):
                x = left + width * (j + 0.5) / len(self.part_labels)
                self._text(draw, (x, row.top - LINE / 2), label, anchor="mm")

    def _legend_lines(self) -> list[list[_LegendItem]]:
        lines: list[list[_LegendItem]] = []
        left = self.width
        for text, color in self.legend:
            width = (_ems(text) + 2.6) * FONT / 72
            if left + width > self.width:
                lines.append([])
                left = GAP
            lines[-1].append((left, text, color))
            left += width
        return lines

    def _draw_legend(
        self, draw: ImageDraw.ImageDraw, lines: Sequence[Sequence[_LegendItem]], top: float
    ) -> None:
        side = 0.8 * FONT / 72
        for i, line in enumerate(lines):
            middle = top + (i + 0.5) * LINE
            for left, text, color in line:
                box = left, middle - side / 2, left + side, middle + side / 2
                draw.rectangle([self._px(x) for x in box], fill=tuple(map(int, color)))
                self._text(draw, (left + 1.4 * side, middle), text)

    def _text(
        self,
        draw: ImageDraw.ImageDraw,
        place: tuple[float, float],
        text: str,
        *,
        size: float = FONT,
        color: str = INK,
        bold: bool = False,
        anchor: str = "lm",
    ) -> None:
        font = _font(size * self.dpi / 72, bold)
        x, y = map(self._px, place)
        draw.text((x, y), text, fill=color, font=font, anchor=anchor, align="right")

    def _px(self, inches: float) -> int:
        return round(inches * self.dpi)


@functools.cache
def _font(pixels: float, bold: bool = False) -> ImageFont.FreeTypeFont:
    """Returns the font that matplotlib uses, too."""
    file = "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"
    path = Path(matplotlib.get_data_path()) / "fonts" / "ttf" / file
    return ImageFont.truetype(str(path), pixels, layout_engine=ImageFont.Layout.BASIC)


def _ems(text: str, bold: bool = False) -> float:
    """Returns the width of a text in font sizes."""
    return _font(100, bold).getlength(text) / 100


def _wrap(text: str, room: float, bold: bool = False) -> list[str]:
    """Breaks a text into lines of a width in font sizes: at spaces, otherwise within words."""
    lines: list[str] = []
    for word in text.split():
        if lines and _ems(f"{lines[-1]} {word}", bold) <= room:
            lines[-1] += f" {word}"
            continue
        while len(word) > 1 and _ems(word, bold) > room:
            end = next(n for n in range(len(word) - 1, 0, -1) if n == 1 or _ems(word[:n]) <= room)
            lines.append(word[:end])
            word = word[end:]
        lines.append(word)
    return lines


def _cut(text: str, room: float, bold: bool = False) -> str:
    """Cuts a text to a width in font sizes."""
    if _ems(text, bold) <= room:
        return text
    while len(text) > 1 and _ems(text + "…", bold) > room:
        text = text[:-1]
    return text + "…"
