"""Style of all figures, and their rendering to PNG.

Figures are created through matplotlib's objects, without pyplot, which would cost import time and
keep every figure in a global list.
"""

import contextlib
import io
import textwrap
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib
import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.rcsetup import cycler
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator
from PIL import Image

BLUE, ORANGE, GRAY, INK = "#2457c5", "#d9480f", "#5b6470", "#14171c"
"""Colors of figures."""
COLORS = (BLUE, ORANGE, "#15803d", "#9333ea", "#1f2937", "#0e7490", "#be185d", "#4d5b1f")
"""Colors of labeled lines, distinguishable with any color vision."""

_STYLE: dict[Any, Any] = {
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
    "text.color": INK,
    "legend.edgecolor": "none",
    "legend.framealpha": 0.85,
    "legend.borderpad": 0.2,
    "legend.fontsize": 8.5,
    "lines.linewidth": 1.5,
    "figure.facecolor": "white",
    # Names are user input: a dollar sign in one does not start a formula.
    "text.parse_math": False,
}
_DPI = 150
TITLE_SIZE = 10.5
"""Size of titles, in points."""
_LINE = 1.3 * TITLE_SIZE / 72
_MARGIN = 0.1
CURVE_MARGINS = (0.85, 0.5, 0.15, 0.08)
"""Margins of curves, in inches; see `make_plot`."""

Draw = Callable[[Axes], str | None]
"""Draws on an axis and returns the title, a statement; None if there are no data to draw."""


class Plot(NamedTuple):
    """Rendered figure."""

    name: str
    """File name without suffix."""
    title: str
    """Title of the figure."""
    image: Image.Image
    """Pixels."""
    png: bytes
    """PNG file."""

    @classmethod
    def encode(cls, name: str, title: str, image: Image.Image) -> "Plot":
        """Encodes an image; stronger compression costs more time than it saves bytes."""
        buffer = io.BytesIO()
        image.save(buffer, "PNG", compress_level=3)
        return cls(name, title, image, buffer.getvalue())


@contextlib.contextmanager
def figure_style() -> Iterator[None]:
    """Context in which all figures are drawn."""
    with matplotlib.rc_context(_STYLE), warnings.catch_warnings():
        # Glyphs that the font lacks are drawn as boxes; the page has the name as text.
        warnings.filterwarnings("ignore", "Glyph .* missing from", UserWarning)
        yield


def make_plot(
    name: str,
    draw: Draw,
    *,
    width: float = 4.8,
    height: float = 3.1,
    margins: tuple[float, float, float, float] | None = CURVE_MARGINS,
) -> Plot | None:
    """Renders one axis below its title; None if there are no data to draw.

    All sizes are in inches; the height is without the title. `draw` may enlarge the figure. The
    margins are left of, below, right of and above the axis; None: computed, which takes three times
    as long.
    """
    engine = None if margins else ConstrainedLayoutEngine()
    figure = Figure(figsize=(width, height), dpi=_DPI, layout=engine)
    axis = figure.add_subplot()
    title = draw(axis)
    if title is None:
        return None
    width, height = figure.get_size_inches()
    lines = wrap_title(title, width - 2 * _MARGIN)
    total = height + len(lines) * _LINE + 2 * _MARGIN
    figure.set_size_inches(width, total)
    if engine is not None:
        engine.set(rect=(0, 0, 1, height / total))
    if margins is not None:
        left, below, right, above = margins
        size = (width - left - right) / width, (height - below - above) / total
        axis.set_position((left / width, below / total, *size))
    place, text = (_MARGIN / width, 1 - _MARGIN / total), "\n".join(lines)
    figure.text(*place, text, va="top", fontsize=TITLE_SIZE, fontweight="bold", linespacing=1.25)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return Plot.encode(name, title, Image.fromarray(np.asarray(canvas.buffer_rgba())[..., :3]))


def existing(*plots: Plot | None) -> list[Plot]:
    """Returns the plots that have data."""
    return [plot for plot in plots if plot is not None]


def write_plots(workdir: Path, plots: Sequence[Plot]) -> None:
    """Writes `workdir/plots/*.png`."""
    folder = workdir / "plots"
    folder.mkdir(exist_ok=True)
    for plot in plots:
        (folder / f"{plot.name}.png").write_bytes(plot.png)


def wrap_title(title: str, width: float, size: float = TITLE_SIZE) -> list[str]:
    """Breaks a title of `size` points into lines of about `width` inches, but not in quantities."""
    title = title.replace(" ± ", "\u00a0±\u00a0").replace(" %", "\u00a0%")
    return textwrap.wrap(title, max(12, int(width * 72 / (0.62 * size)))) or [""]


def use_log_scale(axis: Axes, values: Float[np.ndarray, " N"]) -> None:
    """Makes the y axis logarithmic if the values are positive and span a factor of 30."""
    if not len(values) or values.min() <= 0 or values.max() < 30 * values.min():
        return
    axis.set_yscale("log")
    few = values.max() < 1000 * values.min()
    axis.yaxis.set_major_locator(LogLocator(subs=(1.0, 3.0) if few else (1.0,)))
    axis.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{y:g}"))
    axis.yaxis.set_minor_locator(NullLocator())


def shorten(name: str, length: int = 18) -> str:
    """Cuts a name to at most `length` characters."""
    return name if len(name) <= length else name[: length - 1] + "…"
