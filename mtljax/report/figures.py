"""How every picture looks, and how one becomes a PNG.

Figures are made through matplotlib's objects, without pyplot, which would cost import time and keep
every figure in a global list.
"""

import contextlib
import io
import textwrap
import warnings
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.rcsetup import cycler
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator
from PIL import Image

BLUE, ORANGE, GRAY = "#2457c5", "#d9480f", "#5b6470"
COLORS = (BLUE, ORANGE, "#15803d", "#9333ea", "#1f2937", "#0e7490", "#be185d", "#4d5b1f")
"""Told apart by people with any colour vision when drawn as labelled lines."""

_LOOK: dict[Any, Any] = {
    "font.size": 9.5,
    "axes.titlesize": 9.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#9aa3af",
    "axes.labelcolor": "#2b303a",
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.prop_cycle": cycler("color", COLORS),
    "grid.color": "#e8ebf0",
    "xtick.color": "#4a515e",
    "ytick.color": "#4a515e",
    "text.color": "#14171c",
    "legend.edgecolor": "none",
    "legend.framealpha": 0.85,
    "legend.borderpad": 0.2,
    "legend.fontsize": 8.5,
    "lines.linewidth": 1.5,
    "figure.facecolor": "white",
    # Names come from the user: a dollar sign in one is no formula.
    "text.parse_math": False,
}
_DPI = 150
_TITLE_SIZE = 10.5
_LINE = 1.3 * _TITLE_SIZE / 72
_MARGIN = 0.1
CURVE_MARGINS = (0.85, 0.5, 0.15, 0.08)

Draw = Callable[[Axes], str | None]
"""Draws on an axis and says, as its title, what it shows; None if there is nothing to show."""


class Picture(NamedTuple):
    """A PNG and what it says."""

    name: str
    """File name without its ending."""
    title: str
    image: Image.Image
    png: bytes


@contextlib.contextmanager
def look() -> Iterator[None]:
    """All drawing happens inside of this."""
    with matplotlib.rc_context(_LOOK), warnings.catch_warnings():
        # A name in a script that the font lacks is drawn as boxes; the page has it in letters.
        warnings.filterwarnings("ignore", "Glyph .* missing from", UserWarning)
        yield


def picture(
    name: str,
    draw: Draw,
    *,
    width: float = 4.8,
    height: float = 3.1,
    margins: tuple[float, float, float, float] | None = CURVE_MARGINS,
) -> Picture | None:
    """One axis under a title of its own.

    Args:
      name: File name without its ending.
      draw: Draws it.
      width: Inches.
      height: Inches, without the title.
      margins: Inches left of, below, right of and above the axis; None finds them, for the price of
        drawing everything three times.
    """
    engine = None if margins else ConstrainedLayoutEngine()
    figure = Figure(figsize=(width, height), dpi=_DPI, layout=engine)
    axis = figure.add_subplot()
    title = draw(axis)
    if title is None:
        return None
    lines = wrap(title, width - 2 * _MARGIN)
    total = height + len(lines) * _LINE + 2 * _MARGIN
    figure.set_size_inches(width, total)
    if engine is not None:
        engine.set(rect=(0, 0, 1, height / total))
    if margins is not None:
        left, below, right, above = margins
        size = (width - left - right) / width, (height - below - above) / total
        axis.set_position((left / width, below / total, *size))
    figure.text(
        _MARGIN / width,
        1 - _MARGIN / total,
        "\n".join(lines),
        ha="left",
        va="top",
        fontsize=_TITLE_SIZE,
        fontweight="bold",
        linespacing=1.25,
    )
    return to_png(name, title, pixels(figure))


def pixels(figure: Figure) -> Image.Image:
    """Renders a figure."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return Image.fromarray(np.asarray(canvas.buffer_rgba())[..., :3])


def to_png(name: str, title: str, image: Image.Image) -> Picture:
    """Packs an image; more compression costs more time than it saves bytes."""
    buffer = io.BytesIO()
    image.save(buffer, "PNG", compress_level=3)
    return Picture(name, title, image, buffer.getvalue())


def wrap(title: str, width: float) -> list[str]:
    """Breaks a title into lines of at most `width` inches, or nearly; not within a quantity."""
    title = title.replace(" ± ", "\u00a0±\u00a0").replace(" %", "\u00a0%")
    return textwrap.wrap(title, max(12, int(width * 72 / (0.62 * _TITLE_SIZE)))) or [""]


def scale_axis(axis: Axes, values: Any) -> None:
    """A logarithmic y axis with plain numbers where positive values span a factor of 30."""
    if not len(values) or values.min() <= 0 or values.max() < 30 * values.min():
        return
    axis.set_yscale("log")
    few = values.max() < 1000 * values.min()
    axis.yaxis.set_major_locator(LogLocator(subs=(1.0, 3.0) if few else (1.0,)))
    axis.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{y:g}"))
    axis.yaxis.set_minor_locator(NullLocator())
