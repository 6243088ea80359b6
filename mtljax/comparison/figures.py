"""Figures of a comparison."""

import itertools
from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from mtljax.comparison.conclusions import format_percent
from mtljax.comparison.outcome import Comparison, ComparisonRow
from mtljax.comparison.statistics import Estimate, Metric
from mtljax.report.figures import BLUE, COLORS, GRAY, INK, Plot, make_plot, shorten
from mtljax.tasks import MetricSpec
from mtljax.utils.text import number

MOST_PAIRS = 3
"""Maximum number of pairs of tasks with a scatter plot of their first metrics."""
_ROW = 0.3
MARKERS = "os^Dv<>P"
"""Markers of Matplotlib, in the order of the methods."""
DASHED = (0, (4, 3))
"""Line style of Matplotlib."""


def comparison_plots(comparison: Comparison) -> list[Plot]:
    """Returns all figures that there are data for."""
    first: dict[str, int] = {}
    for k, metric in enumerate(comparison.metrics):
        first.setdefault(metric.task, k)
    pairs = list(itertools.combinations(first.values(), 2))[:MOST_PAIRS]
    plots = [
        plot_delta_m(comparison),
        *(plot_scatter(comparison, *pair) for pair in pairs),
        *(plot(comparison) for plot in (plot_cost, plot_tests, plot_conflicts)),
        *(plot_metric(comparison, k) for k in range(len(comparison.metrics))),
    ]
    return [plot for plot in plots if plot is not None]


def plot_delta_m(comparison: Comparison, prefix: str = "") -> Plot | None:
    """Bars of delta_m with intervals, and samples as dots; `prefix` is put before the title."""
    rows = [row for row in comparison.rows[1:] if row.improvement.seeds]

    def draw(axis: Axes) -> str | None:
        if not rows:
            return None
        for y, row in enumerate(reversed(rows)):
            axis.barh(y, row.improvement.mean, 0.62, color=_color(row), alpha=0.35, lw=0)
        _draw_estimates(axis, rows, lambda row: row.improvement, lambda row: row.delta_m)
        axis.axvline(0, color=INK, lw=1)
        axis.set_xlabel("Δm against single-task networks, % (right is better)")
        best = max(rows, key=lambda row: row.improvement.mean)
        return f"{prefix}Highest mean Δm: {best.name}, {format_percent(best.improvement)}"

    return _row_plot("delta_m", draw, rows)


def plot_scatter(comparison: Comparison, x: int, y: int) -> Plot | None:
    """Scatter plot of the metrics `x` and `y`."""
    metrics = [comparison.metrics[k] for k in (x, y)]

    def draw(axis: Axes) -> str | None:
        methods = [row for row in comparison.rows_of("method") if _has(row, x, y)]
        if not methods:
            return None
        base = comparison.reference
        if _has(base, x, y):
            axis.axvline(base.metric(x).mean, color=GRAY, lw=1, ls=DASHED)
            axis.axhline(base.metric(y).mean, color=GRAY, lw=1, ls=DASHED, label="single-task")
        for i, row in enumerate(methods):
            color = COLORS[i % len(COLORS)]
            axis.plot(row.values[:, x], row.values[:, y], "o", ms=3, color=color, alpha=0.45)
            point, marker = (row.metric(x).mean, row.metric(y).mean), MARKERS[i % len(MARKERS)]
            axis.plot(*point, marker, ms=8, color=color, mec="white", label=shorten(row.name))
        label_metrics(axis, metrics, [comparison.spec(metric) for metric in metrics])
        axis.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), frameon=False)
        return f"{metrics[0].task} against {metrics[1].task}: better is up and to the right"

    return make_plot(f"tasks_{x}_{y}", draw, width=6.4, height=4.2, margins=None)


def label_metrics(axis: Axes, metrics: Sequence[Metric], specs: Sequence[MetricSpec]) -> None:
    """Labels the axes of a scatter plot of two metrics, with the better corner upper right."""
    for scale, metric, spec in zip((axis.xaxis, axis.yaxis), metrics, specs, strict=True):
        scale.set_major_locator(MaxNLocator(5))
        scale.set_major_formatter(_ticks(spec))
        better = "higher" if metric.higher_is_better else "lower"
        scale.set_label_text(f"{metric.task} {spec.label} ({better} is better)")
        scale.set_inverted(not metric.higher_is_better)


def plot_cost(comparison: Comparison) -> Plot | None:
    """Scatter plot of the time per step and delta_m."""
    rows = [comparison.reference, *comparison.rows_of("method")]
    rows = [r for r in rows if r.improvement.seeds and r.costs["ms_per_step"].seeds]

    def draw(axis: Axes) -> str | None:
        if len(rows) < 2:
            return None
        for i, row in enumerate(rows):
            x, y = row.costs["ms_per_step"].mean, row.improvement
            color = GRAY if row.kind == "stl" else COLORS[(i - 1) % len(COLORS)]
            marker, label = MARKERS[i % len(MARKERS)], shorten(row.name)
            axis.errorbar(
                x, y.mean, yerr=_error(y), color=color, fmt=marker, ms=7, capsize=3, label=label
            )
        axis.axhline(0, color=INK, lw=0.8)
        axis.set_xlim(left=0)
        axis.set_xlabel("time per step, ms (single-task: sum over the networks)")
        axis.set_ylabel("Δm, % (up is better)")
        axis.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), frameon=False)
        times = {row.name: row.costs["ms_per_step"].mean for row in rows[1:]}
        fastest, slowest = min(times, key=times.__getitem__), max(times, key=times.__getitem__)
        return (
            f"Cost against Δm: from {number(times[fastest])} ms per step ({fastest}) "
            f"to {number(times[slowest])} ms ({slowest})"
        )

    return make_plot("cost", draw, width=6.4, height=3.6, margins=None)


def plot_tests(comparison: Comparison) -> Plot | None:
    """Matrix of the adjusted p values of all pairs."""
    names = [row.name for row in comparison.rows]

    def draw(axis: Axes) -> str | None:
        tests = [test for test in comparison.tests if not np.isnan(test.adjusted_p)]
        if not tests or len(names) < 2:
            return None
        size = len(names)
        shades = np.full((size, size), np.nan)
        for i, j in itertools.permutations(range(size), 2):
            test = comparison.test(names[i], names[j])
            if test is None or np.isnan(test.adjusted_p):
                continue
            shades[i, j] = np.sign(test.difference.mean) * max(0.0, 1 - test.adjusted_p / 0.1)
            text = "<.001" if test.adjusted_p < 0.001 else f"{test.adjusted_p:.2g}"
            weight = "bold" if test.significant else "normal"
            axis.text(j, i, text, ha="center", va="center", fontsize=7.5, fontweight=weight)
        axis.imshow(shades, cmap="RdBu", vmin=-1.6, vmax=1.6, aspect="auto")
        axis.grid(False)
        labels = [shorten(name, 16) for name in names]
        axis.set_xticks(range(size), labels, rotation=40, ha="right")
        axis.set_yticks(range(size), labels)
        axis.set_xlabel("compared with")
        axis.set_ylabel("method")
        significant = sum(test.significant for test in tests)
        return f"{significant} of {len(tests)} pairs differ significantly in Δm (adjusted p < 0.05)"

    side = 1.6 + 0.42 * len(names)
    return make_plot("tests", draw, width=max(4.8, min(7.5, side + 1.2)), height=side, margins=None)


def plot_conflicts(comparison: Comparison) -> Plot | None:
    """Mean cosine between the tasks' gradients during the training of each method."""
    rows = [row for row in comparison.rows_of("method") if "mean_cosine" in row.telemetry]

    def draw(axis: Axes) -> str | None:
        if not rows:
            return None
        _draw_estimates(axis, rows, lambda row: row.telemetry["mean_cosine"])
        axis.axvline(0, color=INK, lw=1)
        axis.set_xlabel("mean cosine between the tasks' gradients (negative: conflict)")
        rates = {row.name: 100 * row.telemetry["conflicting"].mean for row in rows}
        low, high = min(rates, key=rates.__getitem__), max(rates, key=rates.__getitem__)
        rate = f"{rates[low]:.0f} %"
        if rates[high] > rates[low]:
            rate += f" ({low}) to {rates[high]:.0f} % ({high})"
        return f"The tasks' gradients conflicted in {rate} of the measurements"

    return _row_plot("conflict", draw, rows)


def plot_metric(comparison: Comparison, k: int) -> Plot | None:
    """Means of a metric with intervals, and seeds or folds as dots."""
    metric = comparison.metrics[k]
    spec = comparison.spec(metric)
    rows = [row for row in comparison.rows if _has(row, k)]

    def draw(axis: Axes) -> str | None:
        if not rows:
            return None
        _draw_estimates(axis, rows, lambda row: row.metric(k), lambda row: row.values[:, k])
        axis.xaxis.set_major_locator(MaxNLocator(5))
        axis.xaxis.set_major_formatter(_ticks(spec))
        better = "right" if metric.higher_is_better else "left"
        axis.set_xlabel(f"{spec.label} ({better} is better)")
        best = max(rows, key=lambda row: metric.sign * row.metric(k).mean)
        value = spec.format_tick(float(f"{best.metric(k).mean:.4g}"))
        mean = f"mean over the {comparison.unit}s of {best.name}"
        return f"{metric.task}: best {spec.label} {value}, {mean}"

    return _row_plot(f"metric_{k}", draw, rows)


def _row_plot(
    name: str, draw: Callable[[Axes], str | None], rows: Sequence[ComparisonRow]
) -> Plot | None:
    return make_plot(name, draw, width=6.4, height=0.9 + _ROW * len(rows), margins=None)


def _draw_estimates(
    axis: Axes,
    rows: Sequence[ComparisonRow],
    value: Callable[[ComparisonRow], Estimate],
    samples: Callable[[ComparisonRow], Float[np.ndarray, " S"]] | None = None,
) -> None:
    """Draws means with intervals, one row of the comparison per line, and samples as dots."""
    for y, row in enumerate(reversed(rows)):
        mean, error = value(row).mean, _error(value(row))
        axis.errorbar(mean, y, xerr=error, fmt="o", color=_color(row), ms=5, capsize=4, lw=1.8)
        if samples is not None:
            dots = samples(row)
            axis.plot(dots, np.full(len(dots), y - 0.24), "o", ms=2.8, color=INK, alpha=0.55)
    axis.set_yticks(range(len(rows)), [shorten(row.name, 26) for row in reversed(rows)])


def _ticks(spec: MetricSpec) -> Callable[[float, float], str]:
    return lambda value, _: spec.format_tick(round(value, 9))


def _error(value: Estimate) -> float | None:
    return None if np.isnan(value.half_width) else value.half_width


def _has(row: ComparisonRow, *metrics: int) -> bool:
    return all(row.metric(k).seeds for k in metrics)


def _color(row: ComparisonRow) -> str:
    return {"stl": GRAY, "method": BLUE}[row.kind]
