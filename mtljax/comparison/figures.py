"""The pictures of a comparison."""

import itertools
from collections.abc import Callable

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from mtljax.comparison import statistics
from mtljax.comparison.conclusions import percent
from mtljax.comparison.outcome import Comparison, Row
from mtljax.comparison.statistics import estimate
from mtljax.report.figures import BLUE, COLORS, GRAY, ORANGE, Picture, picture
from mtljax.tasks import MetricSpec
from mtljax.utils.text import number

MOST_PAIRS = 3
"""Of tasks, that are drawn against each other."""
_ROW = 0.3
_SOFT = "#aab2bf"


def pictures(found: Comparison) -> list[Picture]:
    """All that there is something to draw for."""
    drawn = [delta_bars(found)]
    drawn += [scatter(found, *pair) for pair in task_pairs(found)]
    drawn += [cost(found), tests(found), conflict(found)]
    drawn += [dots(found, k) for k in range(len(found.metrics))]
    return [p for p in drawn if p is not None]


def delta_bars(found: Comparison, where: str = "") -> Picture | None:
    """delta_m of every method with its interval, the seeds as dots; `where` begins the title."""
    rows = [row for row in found.rows[1:] if estimate(row.delta).seeds]

    def draw(axis: Axes) -> str | None:
        if not rows:
            return None
        for y, row in enumerate(reversed(rows)):
            mean, half, _ = estimate(row.delta)
            axis.barh(y, mean, 0.62, color=_color(row), alpha=0.35, lw=0)
            axis.errorbar(
                mean, y, xerr=_half(half), color=_color(row), capsize=4, lw=1.8, fmt="o", ms=5
            )
            _dots(axis, row.delta, y - 0.24)
        axis.axvline(0, color="#14171c", lw=1)
        axis.set_yticks(range(len(rows)), [_short(row.name) for row in reversed(rows)])
        axis.set_xlabel("Δm against single-task networks, % (right is better)")
        best = max((row for row in rows), key=lambda row: estimate(row.delta).mean)
        best_delta = percent(estimate(best.delta))
        return f"{where}Δm: highest in the mean for {best.name}, {best_delta}"

    return picture("delta_m", draw, width=6.4, height=0.9 + _ROW * len(rows), margins=None)


def task_pairs(found: Comparison) -> list[tuple[int, int]]:
    """Pairs of metrics to draw against each other: the first of each task, few pairs."""
    first: dict[str, int] = {}
    for k, metric in enumerate(found.metrics):
        first.setdefault(metric.task, k)
    return list(itertools.combinations(first.values(), 2))[:MOST_PAIRS]


def scatter(found: Comparison, x: int, y: int) -> Picture | None:
    """Two tasks against each other, the front of fixed weightings as a line."""
    names = [f"{found.metrics[k].task} {found.spec(found.metrics[k]).label}" for k in (x, y)]

    def draw(axis: Axes) -> str | None:
        methods = [row for row in found.kind("method") if _known(row, x, y)]
        if not methods:
            return None
        _front(axis, found, x, y)
        base = found.rows[0]
        if _known(base, x, y):
            axis.axvline(base.of(x).mean, color=GRAY, lw=1, ls=(0, (4, 3)))
            axis.axhline(base.of(y).mean, color=GRAY, lw=1, ls=(0, (4, 3)), label="single-task")
        for i, row in enumerate(methods):
            color = COLORS[i % len(COLORS)]
            axis.plot(row.values[:, x], row.values[:, y], "o", ms=3, color=color, alpha=0.45)
            axis.plot(
                row.of(x).mean,
                row.of(y).mean,
                "os^Dv<>P"[i % 8],
                ms=8,
                color=color,
                mec="white",
                label=_short(row.name, 18),
            )
        for k, scale, name in ((x, "x", names[0]), (y, "y", names[1])):
            of_axis = axis.xaxis if scale == "x" else axis.yaxis
            of_axis.set_major_locator(MaxNLocator(5))
            metric = found.metrics[k]
            of_axis.set_major_formatter(_ticks(found.spec(metric)))
            of_axis.set_label_text(f"{name} ({'higher' if metric.higher else 'lower'} is better)")
        near = np.concatenate([row.values[:, [x, y]] for row in (base, *methods)])
        _focus(axis, near[~np.isnan(near).any(1)])
        # The better corner is always upper right.
        axis.xaxis.set_inverted(not found.metrics[x].higher)
        axis.yaxis.set_inverted(not found.metrics[y].higher)
        axis.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), frameon=False)
        return (
            f"{found.metrics[x].task} against {found.metrics[y].task}: "
            "better is up and to the right"
        )

    return picture(f"tasks_{x}_{y}", draw, width=6.4, height=4.2, margins=None)


def _front(axis: Axes, found: Comparison, x: int, y: int) -> None:
    """Fixed weightings, and a line through those that no other one beats."""
    front = [row for row in found.kind("front") if _known(row, x, y)]
    if not front:
        return
    points = np.array([[row.of(x).mean, row.of(y).mean] for row in front])
    axis.plot(*points.T, "x", color=_SOFT, ms=6, label="fixed weights")
    best = points[statistics.on_front(points, [found.metrics[x], found.metrics[y]])]
    order = np.argsort(best[:, 0])
    axis.plot(*best[order].T, "-", color=_SOFT, lw=1.5, label="their front")


def _focus(axis: Axes, near: np.ndarray) -> None:
    """Shows these points large, though others be far away."""
    low, high = near.min(0), near.max(0)
    room = np.maximum(0.35 * (high - low), 1e-9)
    left, right, bottom, top = *axis.get_xlim(), *axis.get_ylim()
    axis.set_xlim(max(left, low[0] - room[0]), min(right, high[0] + room[0]))
    axis.set_ylim(max(bottom, low[1] - room[1]), min(top, high[1] + room[1]))


def cost(found: Comparison) -> Picture | None:
    """What a step takes against what it brings."""
    rows = [
        row
        for row in (found.rows[0], *found.kind("method"))
        if estimate(row.delta).seeds and row.costs["ms_per_step"].seeds
    ]

    def draw(axis: Axes) -> str | None:
        if len(rows) < 2:
            return None
        for i, row in enumerate(rows):
            mean, half, _ = estimate(row.delta)
            took = row.costs["ms_per_step"]
            color = GRAY if row.kind == "stl" else COLORS[(i - 1) % len(COLORS)]
            axis.errorbar(
                took.mean,
                mean,
                yerr=_half(half),
                color=color,
                fmt="os^Dv<>P"[i % 8],
                ms=7,
                capsize=3,
                label=_short(row.name, 18),
            )
        axis.axhline(0, color="#14171c", lw=0.8)
        axis.set_xlim(left=0)
        axis.set_xlabel("time of a step, ms (single-task: the sum over its networks)")
        axis.set_ylabel("Δm, % (up is better)")
        axis.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), frameon=False)
        times = {row.name: row.costs["ms_per_step"].mean for row in rows[1:]}
        fastest, slowest = min(times, key=times.__getitem__), max(times, key=times.__getitem__)
        return (
            f"Cost against Δm: from {number(times[fastest])} ms a step ({fastest}) "
            f"to {number(times[slowest])} ms ({slowest})"
        )

    return picture("cost", draw, width=6.4, height=3.6, margins=None)


def tests(found: Comparison) -> Picture | None:
    """Which methods differ: corrected p of every pair."""
    names = [row.name for row in found.rows if row.kind != "front"]

    def draw(axis: Axes) -> str | None:
        made = [test for test in found.tests if not np.isnan(test.corrected)]
        if not made or len(names) < 2:
            return None
        size = len(names)
        shown = np.full((size, size), np.nan)
        for i, j in itertools.permutations(range(size), 2):
            test = found.test(names[i], names[j])
            if test is None or np.isnan(test.corrected):
                continue
            shown[i, j] = np.sign(test.difference.mean) * max(0.0, 1 - test.corrected / 0.1)
            text = "<.001" if test.corrected < 0.001 else f"{test.corrected:.2g}"
            mark = "bold" if test.significant else "normal"
            axis.text(j, i, text, ha="center", va="center", fontsize=7.5, fontweight=mark)
        axis.imshow(shown, cmap="RdBu", vmin=-1.6, vmax=1.6, aspect="auto")
        axis.grid(False)
        labels = [_short(name, 16) for name in names]
        axis.set_xticks(range(size), labels, rotation=40, ha="right")
        axis.set_yticks(range(size), labels)
        axis.set_xlabel("... than this one")
        axis.set_ylabel("is this method better ...")
        sure = sum(test.significant for test in made)
        return f"{sure} of {len(made)} pairs differ in Δm beyond chance (p < 0.05, corrected)"

    side = 1.6 + 0.42 * len(names)
    return picture("tests", draw, width=max(4.8, min(7.5, side + 1.2)), height=side, margins=None)


def conflict(found: Comparison) -> Picture | None:
    """How often the tasks' gradients pointed apart while a method trained."""
    rows = [row for row in found.kind("method") if "mean_cosine" in row.telemetry]

    def draw(axis: Axes) -> str | None:
        if not rows:
            return None
        for y, row in enumerate(reversed(rows)):
            told = row.telemetry["mean_cosine"]
            axis.errorbar(
                told.mean, y, xerr=_half(told.half), fmt="o", color=_color(row), ms=5, capsize=4
            )
        axis.axvline(0, color="#14171c", lw=1)
        axis.set_yticks(range(len(rows)), [_short(row.name) for row in reversed(rows)])
        axis.set_xlabel("mean cosine between tasks' gradients (left of 0: conflict)")
        share = {row.name: 100 * row.telemetry["conflicting"].mean for row in rows}
        low, high = min(share, key=share.__getitem__), max(share, key=share.__getitem__)
        where = f"{share[low]:.0f} %"
        if share[high] > share[low]:
            where += f" ({low}) to {share[high]:.0f} % ({high})"
        return f"Tasks' gradients pointed apart in {where} of measurements"

    return picture("conflict", draw, width=6.4, height=0.9 + _ROW * len(rows), margins=None)


def dots(found: Comparison, k: int) -> Picture | None:
    """One metric of every method: seeds as dots, the mean with its interval."""
    metric = found.metrics[k]
    rows = [row for row in found.rows if row.of(k).seeds]

    def draw(axis: Axes) -> str | None:
        if not rows:
            return None
        for y, row in enumerate(reversed(rows)):
            told = row.of(k)
            axis.errorbar(
                told.mean, y, xerr=_half(told.half), fmt="o", color=_color(row), ms=5, capsize=4
            )
            _dots(axis, row.values[:, k], y - 0.24)
        axis.set_yticks(range(len(rows)), [_short(row.name) for row in reversed(rows)])
        axis.xaxis.set_major_locator(MaxNLocator(5))
        axis.xaxis.set_major_formatter(_ticks(found.spec(metric)))
        better = "right" if metric.higher else "left"
        axis.set_xlabel(f"{found.spec(metric).label} ({better} is better)")
        sign = 1 if metric.higher else -1
        best = max(rows, key=lambda row: sign * row.of(k).mean)
        value = found.spec(metric).format_tick(float(f"{best.of(k).mean:.4g}"))
        return (
            f"{metric.task}: best {found.spec(metric).label} in the mean for {best.name}, {value}"
        )

    return picture(f"metric_{k}", draw, width=6.4, height=0.9 + _ROW * len(rows), margins=None)


def _dots(axis: Axes, values: np.ndarray, y: float) -> None:
    axis.plot(values, np.full(len(values), y), "o", ms=2.8, color="#14171c", alpha=0.55)


def _ticks(spec: MetricSpec) -> Callable[[float, float], str]:
    return lambda value, _: spec.format_tick(round(value, 9))


def _half(half: float) -> float | None:
    return None if np.isnan(half) else half


def _known(row: Row, *metrics: int) -> bool:
    return all(row.of(k).seeds for k in metrics)


def _color(row: Row) -> str:
    return {"stl": GRAY, "method": BLUE, "front": ORANGE}[row.kind]


def _short(name: str, room: int = 26) -> str:
    return name if len(name) <= room else name[: room - 1] + "…"
