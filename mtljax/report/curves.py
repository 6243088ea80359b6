"""Training curves: losses, metrics, weights and gradient statistics over the steps."""

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from mtljax.report.figures import BLUE, COLORS, GRAY, INK, ORANGE, shorten, use_log_scale
from mtljax.report.history import History, Series, series, steps_per_epoch
from mtljax.runs.records import TrainRecord
from mtljax.runs.result import RunResult
from mtljax.tasks import Task
from mtljax.utils.text import number

LABELED_MARGINS = (0.85, 0.5, 1.25, 0.08)
"""Margins of a figure with labels at the ends of its lines."""
_LABELED_LINES = 8
_LABELED_PAIRS = 20


def draw_loss(axis: Axes, task: Task, history: History, best_step: int | None) -> str | None:
    """Draws a task's training and validation loss, and the selected step."""
    train = series(history, "loss", task.name).finite()
    validation = series(history, "validation", task.name, "loss").finite()
    if not len(train.steps) and not len(validation.steps):
        return None
    _line(axis, train, color=BLUE, lw=1.2, label="training")
    _line(axis, validation, color=ORANGE, marker="o", ms=4, label="validation")
    use_log_scale(axis, np.concatenate([train.values, validation.values]))
    _mark_step(axis, best_step)
    axis.set_ylabel(f"loss of {shorten(task.name)}")
    _set_step_axis(axis, history)
    axis.legend()
    parts = []
    if len(train.steps) == 1:
        parts.append(f"training loss {number(train.values[0])} at the only logged step")
    elif len(train.steps):
        first, last = train.values[0], float(np.median(train.tail(0.1)))
        verb = "decreased" if last < first else "did not decrease:"
        parts.append(f"training loss {verb} from {number(first)} to {number(last)}")
    selected = validation.values[validation.steps == best_step]
    if len(selected):
        parts.append(f"validation loss {number(selected[0])} at the selected step")
    elif len(validation.steps):
        parts.append(f"validation loss {number(validation.values[-1])} at the end")
    return f"{task.name}: {', '.join(parts)}"


def draw_metric(axis: Axes, task: Task, history: History, best_step: int | None) -> str | None:
    """Draws a task's main metric on validation."""
    metric = series(history, "validation", task.name, task.main_metric).finite()
    if not len(metric.steps):
        return None
    _line(axis, metric, color=ORANGE, marker="o", ms=4)
    _mark_step(axis, best_step)
    spec = task.metric_spec(task.main_metric)
    axis.set_ylabel(f"validation {spec.label}")
    axis.yaxis.set_major_formatter(lambda y, _: spec.format_tick(y))
    _set_step_axis(axis, history)
    first, last, when = metric.values[0], metric.values[-1], "at the end"
    if best_step in metric.steps:
        last, when = metric.values[metric.steps == best_step][0], "at the selected step"
    first, last = spec.format(first), spec.format(last)
    return f"{task.name}: validation {spec.label} {first} at first, {last} {when}"


def draw_ranking(axis: Axes, tasks: Sequence[Task], result: RunResult) -> str | None:
    """Draws tasks with the same main metric in its order: test filled, validation hollow."""
    metric = tasks[0].main_metric
    spec = tasks[0].metric_spec(metric)
    value = lambda split, task: split.get(task.name, {}).get(metric, np.nan)
    values = {t.name: (value(result.test, t), value(result.validation, t)) for t in tasks}
    known = {name: pair for name, pair in values.items() if np.isfinite(pair[0])}
    if not known:
        return None
    names = sorted(known, key=lambda name: known[name][0], reverse=not tasks[0].higher_is_better)
    tests, validations = np.array([known[name] for name in names]).T
    rows = range(len(names))
    axis.hlines(rows, tests, validations, color="#c3c9d3", lw=1)
    axis.plot(validations, rows, "o", color=ORANGE, mfc="white", ms=4, ls="none")
    axis.plot(tests, rows, "o", color=BLUE, ms=4.5, ls="none")
    axis.set_yticks(rows, [shorten(name, 30) for name in names], fontsize=8)
    axis.set_ylim(-0.7, len(names) - 0.3)
    axis.xaxis.set_major_locator(MaxNLocator(5))
    axis.xaxis.set_major_formatter(lambda x, _: spec.format_tick(x))
    axis.set_xlabel(spec.label)
    worst, best = (f"{shorten(names[i], 30)} {spec.format(tests[i])}" for i in (0, -1))
    return f"Test {spec.label}: from {worst} to {best}"


def describe_weights(tasks: Sequence[Task], history: History, balancer: str) -> str | None:
    """Describes weights that are constant or missing; None if they change and are drawn."""
    weights = _weights(tasks, history)
    if not weights:
        return (
            f"{balancer} computes a direction from the task gradients, not a weight per task, so "
            "there are no weights to plot."
        )
    if any(len(w.values) > 1 and np.ptp(w.values) > 1e-6 for w in weights.values()):
        return None
    values = {round(float(w.values[0]), 6) for w in weights.values()}
    text = ", ".join(f"{name} {number(w.values[0])}" for name, w in weights.items())
    if len(values) == 1:
        text = f"{number(values.pop())} for every task"
    is_known = any(len(w.values) > 1 for w in weights.values())
    verb = "are constant" if is_known else "were recorded at one step"
    return f"The task weights of {balancer} {verb}: {text}."


def draw_weights(axis: Axes, tasks: Sequence[Task], history: History, balancer: str) -> str | None:
    """Draws the balancer's weights over the steps, with a label at the end of each line."""
    if describe_weights(tasks, history, balancer) is not None:
        return None
    weights = _weights(tasks, history)
    means = {name: float(w.tail(0.25).mean()) for name, w in weights.items()}
    ranked = sorted(means, key=means.__getitem__, reverse=True)
    half = _LABELED_LINES // 2
    unlabeled = ranked[half:-half]
    labeled = [name for name in ranked if name not in unlabeled]
    for name in unlabeled:
        _line(axis, weights[name], color="#d5d9e0", lw=0.8)
    names = [task.name for task in tasks if task.name in labeled]
    colors = dict(zip(names, COLORS, strict=False))
    for name in names:
        _line(axis, weights[name], color=colors[name])
    use_log_scale(axis, np.concatenate([w.values for w in weights.values()]))
    axis.set_ylabel("weight of the task's loss")
    _set_step_axis(axis, history)
    _label_lines(axis, {name: weights[name].downsample().values[-1] for name in names}, colors)
    text = ", ".join(f"{name} {number(means[name])}" for name in labeled[:3])
    last = f", ... {labeled[-1]} {number(means[labeled[-1]])}" if len(labeled) > 3 else ""
    return f"Weights of {balancer}, mean over the last quarter: {text}{last}"


def draw_cosines(axis: Axes, tasks: Sequence[Task], history: History) -> str | None:
    """Draws the cosine between the gradients of pairs of tasks over the steps, as a heat map."""
    records = [r for r in history if isinstance(r, TrainRecord) and r.telemetry]
    if not records or len(tasks) < 2:
        return None
    telemetry = [record.telemetry or {} for record in records]
    cosines = np.array([measured["cosine"] for measured in telemetry], float)
    pairs = np.array(list(itertools.combinations(range(len(tasks)), 2)))
    rows = cosines[:, pairs[:, 0], pairs[:, 1]].T
    order = np.argsort(rows.mean(1))[:_LABELED_PAIRS]
    # A record is written at the end of a chunk; its telemetry is measured at the first step.
    steps = np.array([record.step for record in records], float)
    edges = np.append(steps, steps[-1] + (steps[-1] - steps[-2] if len(steps) > 1 else steps[-1]))
    lines = np.arange(len(order) + 1)
    shades = axis.pcolormesh(edges, lines, rows[order], cmap="RdBu", vmin=-1, vmax=1)
    axis.grid(False)
    names = [" · ".join(shorten(tasks[i].name, 11) for i in pair) for pair in pairs[order]]
    axis.set_yticks(np.arange(len(order)) + 0.5, names, fontsize=8)
    axis.invert_yaxis()
    axis.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    axis.set_xlabel("step")
    axis.figure.colorbar(shades, ax=axis, label="cosine", shrink=0.9)
    rate = np.mean([measured["conflicting"] for measured in telemetry])
    subject = "The tasks' gradients" if len(pairs) == 1 else f"Gradient pairs of {len(tasks)} tasks"
    return f"{subject} conflicted in {100 * rate:.0f} % of {len(records)} measurements"


def draw_curvature(axis: Axes, history: History) -> str | None:
    """Draws the curvature of the summed task losses along the updates."""
    curvature = _draw_series(axis, history, "curvature along the update", "telemetry", "curvature")
    if curvature is None:
        return None
    negative = 100 * np.mean(curvature.values < 0)
    median = number(float(np.median(curvature.tail(0.25))))
    text = f", negative in {negative:.0f} % of the measurements" if negative else ""
    return f"Curvature of the losses along the update: {median} in the last quarter{text}"


def draw_gradient_norm(axis: Axes, history: History) -> str | None:
    """Draws the norm of the balanced gradient."""
    norm = _draw_series(axis, history, "norm of the gradient", "grad_norm")
    if norm is None:
        return None
    median = number(float(np.median(norm.tail(0.25))))
    if len(norm.steps) == 1:
        return f"Gradient norm {median} at the only logged step"
    return f"Gradient norm: {number(norm.values[0])} at first, {median} in the last quarter"


def draw_throughput(axis: Axes, history: History) -> str | None:
    """Draws the throughput measured by the training loop."""
    speed = series(history, "examples_per_second").finite()
    if not len(speed.steps):
        return None
    _line(axis, speed, color=GRAY, lw=1.2)
    axis.set_ylim(0, 1.1 * max(speed.values.max(), 1e-9))
    axis.set_ylabel("images per second")
    axis.yaxis.set_major_formatter(lambda y, _: f"{y:,.0f}" if y >= 10 else f"{y:g}")
    _set_step_axis(axis, history)
    return f"Throughput: median {number(float(np.median(speed.values)))} images per second"


def _weights(tasks: Sequence[Task], history: History) -> dict[str, Series]:
    weights = {task.name: series(history, "weight", task.name).finite() for task in tasks}
    return {name: weight for name, weight in weights.items() if len(weight.steps)}


def _draw_series(axis: Axes, history: History, label: str, *keys: str) -> Series | None:
    points = series(history, *keys).finite()
    if not len(points.steps):
        return None
    _line(axis, points, color=GRAY, lw=1.2)
    use_log_scale(axis, points.values)
    axis.set_ylabel(label)
    _set_step_axis(axis, history)
    return points


def _line(axis: Axes, points: Series, **style: Any) -> None:
    points = points.downsample()
    if len(points.steps) == 1:
        style.setdefault("marker", "o")
    axis.plot(points.steps, points.values, **style)


def _mark_step(axis: Axes, step: int | None) -> None:
    if step is not None:
        axis.axvline(step, color=INK, lw=1, ls=(0, (3, 3)), label=f"selected: step {step:,}")


def _set_step_axis(axis: Axes, history: History) -> None:
    """Sets the x axis, which is the same in all curves."""
    last = max((record.step for record in history), default=1)
    axis.set_xlim(0, last * 1.02)
    axis.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    axis.xaxis.set_major_formatter(lambda x, _: f"{x:,.0f}")
    epoch = steps_per_epoch(history)
    axis.set_xlabel(f"step ({number(epoch)} steps per epoch)" if epoch else "step")


def _label_lines(axis: Axes, ends: dict[str, float], colors: dict[str, str]) -> None:
    """Writes names next to the ends of lines, moved so that they do not overlap."""
    low, high = axis.get_ylim()
    scale = axis.yaxis.get_transform().transform
    low, high, *heights = scale(np.array([low, high, *ends.values()]))
    positions = (np.array(heights) - low) / (high - low)
    order, gap = np.argsort(positions), 0.075
    separated = positions[order]
    for i in range(1, len(separated)):
        separated[i] = max(separated[i], separated[i - 1] + gap)
    separated -= max(0.0, separated[-1] - 1.0)
    names = list(ends)
    for name, y in zip([names[i] for i in order], separated, strict=True):
        text = axis.text(1.01, y, shorten(name), color=colors[name], va="center", fontsize=8.5)
        text.set_transform(axis.transAxes)
