"""The page of a grouping of tasks."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle

from mtljax.comparison.grouping.search import Grouping
from mtljax.comparison.page import write_plots
from mtljax.config import Experiment, to_json
from mtljax.report.figures import Picture, look, picture
from mtljax.report.page import flatten, template
from mtljax.utils.files import write_text
from mtljax.utils.text import count

_NUMBERS = 12
"""Most tasks whose affinities are written into the matrix."""


def write_page(
    workdir: Path, experiment: Experiment, found: Grouping, conclusions: Sequence[str]
) -> None:
    """Writes `workdir/report.html`, which holds all that it shows, and the picture as a file."""
    names = [task.name for task in experiment.tasks]
    with look():
        drawn = matrix(names, found)
    page = template("grouping.html.jinja", "mtljax.comparison.grouping").render(
        title=experiment.name,
        conclusions=conclusions,
        groups=[[names[i] for i in part] for part in found.groups],
        names=names,
        affinity=100 * found.affinity,
        picture=drawn,
        settings=list(flatten(to_json(experiment))),
    )
    write_plots(workdir, [drawn] if drawn is not None else [])
    write_text(workdir / "report.html", page)


def matrix(names: Sequence[str], found: Grouping) -> Picture | None:
    """The affinities, tasks of a group beside each other and framed."""
    order = [i for part in found.groups for i in part]
    shown = 100 * found.affinity[np.ix_(order, order)]
    size = len(order)

    def draw(axis: Axes) -> str:
        off = shown[~np.eye(size, dtype=bool)]
        limit = max(np.abs(off).max(), 1e-9)
        places = 2 - int(np.floor(np.log10(limit)))
        faded = np.where(np.eye(size, dtype=bool), np.nan, shown)
        shades = axis.imshow(faded, cmap="RdBu", vmin=-limit, vmax=limit)
        axis.grid(False)
        if size <= _NUMBERS:
            for (i, j), value in np.ndenumerate(faded):
                if np.isfinite(value):
                    color = "white" if abs(value) > 0.7 * limit else "black"
                    text = f"{round(value, places):.2g}"
                    axis.text(j, i, text, ha="center", va="center", fontsize=8, color=color)
        at = 0
        for part in found.groups:
            axis.add_patch(
                Rectangle(
                    (at - 0.48, at - 0.48), len(part) - 0.04, len(part) - 0.04, fill=False, lw=2
                )
            )
            at += len(part)
        labels = [names[i] for i in order]
        axis.set_xticks(range(size), labels, rotation=40, ha="right")
        axis.set_yticks(range(size), labels)
        axis.set_ylabel("a step on this task ...")
        axis.set_xlabel("... lowers this one's loss by so many %")
        axis.figure.colorbar(shades, ax=axis, label="% of the loss", shrink=0.8)
        several = sum(len(part) > 1 for part in found.groups)
        return (
            f"Which task helps which (blue) or hurts (red): {count(several, 'group')} to train "
            "together, framed"
        )

    side = min(9.0, 2.2 + 0.5 * size)
    return picture("affinity", draw, width=max(5.0, side + 0.9), height=side, margins=None)
