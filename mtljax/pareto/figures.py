"""Figures of Pareto fronts."""

import itertools

import numpy as np
from matplotlib.axes import Axes

from mtljax.comparison.figures import DASHED, MARKERS, label_metrics
from mtljax.pareto.conclusions import format_volume
from mtljax.pareto.outcome import Front, FrontOutcome
from mtljax.report.figures import COLORS, GRAY, INK, Plot, existing, make_plot, shorten


def front_plots(outcome: FrontOutcome) -> list[Plot]:
    """Returns the fronts in each pair of metrics, and the hypervolumes."""
    pairs = itertools.combinations(range(len(outcome.metrics)), 2)
    return existing(*(plot_front(outcome, x, y) for x, y in pairs), plot_volumes(outcome))


def plot_front(outcome: FrontOutcome, x: int, y: int) -> Plot | None:
    """Scatter plot of two metrics, with a line through the rays that no other ray dominates."""
    metrics = [outcome.metrics[k] for k in (x, y)]

    def draw(axis: Axes) -> str | None:
        if all(np.isnan(front.values).all() for front in outcome.fronts):
            return None
        single = np.nanmean(outcome.single, 0) if not np.isnan(outcome.single).all() else None
        if single is not None:
            axis.axvline(single[x], color=GRAY, lw=1, ls=DASHED)
            axis.axhline(single[y], color=GRAY, lw=1, ls=DASHED, label="single-task")
        for i, front in enumerate(outcome.fronts):
            color, marker = color_of(outcome, front), MARKERS[i % len(MARKERS)]
            axis.plot(
                *front.values[..., [x, y]].reshape(-1, 2).T, ".", ms=3, color=color, alpha=0.4
            )
            means = front.means[:, [x, y]]
            label = shorten(front.name, 24)
            axis.plot(*means.T, marker, ms=7, color=color, mec="white", label=label)
            optimal = means[outcome.optimal(front)]
            axis.plot(*optimal[np.argsort(optimal[:, 0])].T, "-", color=color, lw=1.2, alpha=0.7)
        label_metrics(axis, metrics, [outcome.spec(metric) for metric in metrics])
        axis.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), frameon=False)
        return f"{metrics[0].task} against {metrics[1].task}: better is up and to the right"

    return make_plot(f"front_{x}_{y}", draw, width=6.4, height=4.2, margins=None)


def plot_volumes(outcome: FrontOutcome) -> Plot | None:
    """Hypervolumes with intervals, and seeds as dots."""
    fronts = [front for front in outcome.fronts if outcome.volume(front).seeds]

    def draw(axis: Axes) -> str | None:
        if not fronts:
            return None
        for y, front in enumerate(reversed(fronts)):
            volumes, volume = outcome.volumes(front), outcome.volume(front)
            error = None if np.isnan(volume.half_width) else volume.half_width
            color = color_of(outcome, front)
            axis.errorbar(volume.mean, y, None, error, "o", color=color, ms=5, capsize=4, lw=1.8)
            axis.plot(volumes, np.full(len(volumes), y - 0.24), "o", ms=2.8, color=INK, alpha=0.55)
        axis.set_yticks(range(len(fronts)), [shorten(f.name, 26) for f in reversed(fronts)])
        axis.set_xlabel("hypervolume (right is better; 1: as single-task networks)")
        best = max(fronts, key=lambda front: outcome.volume(front).mean)
        return f"Largest hypervolume: {best.name}, {format_volume(outcome.volume(best))}"

    return make_plot("hypervolume", draw, width=6.4, height=0.9 + 0.4 * len(fronts), margins=None)


def color_of(outcome: FrontOutcome, front: Front) -> str:
    """Color of a front in all figures; linear scalarization has the neutral one."""
    names, colors = [other.name for other in outcome.methods], COLORS[:4] + COLORS[5:]  # no gray
    return INK if front.is_linear else colors[names.index(front.name) % len(colors)]
