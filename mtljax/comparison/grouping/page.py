"""Page of a task grouping."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle

from mtljax.comparison.grouping.search import Grouping
from mtljax.config import Experiment
from mtljax.report.figures import Plot, existing, figure_style, make_plot, write_plots
from mtljax.report.page import load_template, settings_text
from mtljax.utils.files import write_text
from mtljax.utils.text import count

_NUMBERS = 12
"""Maximum number of tasks for which the matrix shows numbers."""


def write_page(
    workdir: Path, experiment: Experiment, grouping: Grouping, conclusions: Sequence[str]
) -> None:
    """Writes the self-contained page `workdir/report.html`, and `workdir/plots/affinity.png`."""
    names = [task.name for task in experiment.tasks]
    with figure_style():
        plot = plot_affinity(names, grouping)
    page = load_template("grouping.html.jinja", "mtljax.comparison.grouping").render(
        title=experiment.name,
        conclusions=conclusions,
        names=names,
        affinity=100 * grouping.affinity,
        plot=plot,
        settings=settings_text(experiment),
    )
    write_plots(workdir, existing(plot))
    write_text(workdir / "report.html", page)


def plot_affinity(names: Sequence[str], grouping: Grouping) -> Plot | None:
    """Heat map of the affinities, with the tasks of a group adjacent and framed."""
    order = [i for part in grouping.groups for i in part]
    shown = 100 * grouping.affinity[np.ix_(order, order)]
    size = len(order)

    def draw(axis: Axes) -> str:
        limit = max(np.abs(shown[~np.eye(size, dtype=bool)]).max(), 1e-9)
        places = 2 - int(np.floor(np.log10(limit)))
        values = np.where(np.eye(size, dtype=bool), np.nan, shown)
        shades = axis.imshow(values, cmap="RdBu", vmin=-limit, vmax=limit)
        axis.grid(False)
        if size <= _NUMBERS:
            for (i, j), value in np.ndenumerate(values):
                if np.isfinite(value):
                    color = "white" if abs(value) > 0.7 * limit else "black"
                    text = f"{round(value, places):.2g}"
                    axis.text(j, i, text, ha="center", va="center", fontsize=8, color=color)
        start = 0
        for part in grouping.groups:
            corner, side = (start - 0.48, start - 0.48), len(part) - 0.04
            axis.add_patch(Rectangle(corner, side, side, fill=False, lw=2))
            start += len(part)
        labels = [names[i] for i in order]
        axis.set_xticks(range(size), labels, rotation=40, ha="right")
        axis.set_yticks(range(size), labels)
        axis.set_ylabel("step on this task")
        axis.set_xlabel("decrease of this task's loss, %")
        axis.figure.colorbar(shades, ax=axis, label="% of the loss", shrink=0.8)
        several = sum(len(part) > 1 for part in grouping.groups)
        return (
            f"Affinity between tasks, positive (blue) or negative (red): {count(several, 'group')} "
            "to train together (framed)"
        )

    side = min(9.0, 2.2 + 0.5 * size)
    return make_plot("affinity", draw, width=max(5.0, side + 0.9), height=side, margins=None)
