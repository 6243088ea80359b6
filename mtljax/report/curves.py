"""What happened while training, over the steps."""

import itertools
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from mtljax.report.figures import BLUE, COLORS, GRAY, ORANGE, scale_axis
from mtljax.report.history import Series, series, steps_per_epoch
from mtljax.tasks import Task
from mtljax.utils.text import number

NAMED_MARGINS = (0.85, 0.5, 1.25, 0.08)
"""Of a figure with names at the ends of its lines."""
_NAMED_LINES = 8
_NAMED_PAIRS = 20


def draw_loss(axis: Axes, task: Task, history: Sequence[dict], best: int | None) -> str | None:
    """A task's training loss, its validation loss, and the step that validation chose."""
    train = series(history, "loss", task.name).finite()
    validation = series(history, "validation", task.name, "loss").finite()
    if not len(train.steps) and not len(validation.steps):
        return None
    _line(axis, train.thinned(), color=BLUE, lw=1.2, label="training")
    _line(axis, validation.thinned(), color=ORANGE, marker="o", ms=4, label="validation")
    scale_axis(axis, np.concatenate([train.values, validation.values]))
    _mark_best(axis, best)
    axis.set_ylabel(f"loss of {_short(task.name)}")
    _finish(axis, history)
    axis.legend()
    parts = []
    if len(train.steps) == 1:
        parts.append(f"training loss {number(train.values[0])} at the only logged step")
    elif len(train.steps):
        first, last = train.values[0], float(np.median(train.tail(0.1)))
        verb = "fell" if last < first else "did not fall:"
        parts.append(f"training loss {verb} from {number(first)} to {number(last)}")
    chosen = validation.values[validation.steps == best]
    if len(chosen):
        parts.append(f"validation loss {number(chosen[0])} at the chosen step")
    elif len(validation.steps):
        parts.append(f"validation loss {number(validation.values[-1])} at the end")
    return f"{task.name}: {', '.join(parts)}"


def draw_metric(axis: Axes, task: Task, history: Sequence[dict], best: int | None) -> str | None:
    """A task's main metric on validation."""
    found = series(history, "validation", task.name, task.main_metric).finite()
    if not len(found.steps):
        return None
    _line(axis, found.thinned(), color=ORANGE, marker="o", ms=4)
    _mark_best(axis, best)
    spec = task.metric_spec(task.main_metric)
    axis.set_ylabel(f"validation {spec.label}")
    axis.yaxis.set_major_formatter(lambda y, _: spec.format_tick(y))
    _finish(axis, history)
    first, last = found.values[0], found.values[-1]
    shown, where = last, "at the end"
    if best in found.steps:
        shown, where = found.values[found.steps == best][0], "at the chosen step"
    shown, first = (spec.format(x) for x in (shown, first))
    return f"{task.name}: validation {spec.label} {first} at first, {shown} {where}"


def draw_ranking(axis: Axes, tasks: Sequence[Task], result: dict) -> str | None:
    """Tasks of one main metric, ordered by it: the test split filled, validation hollow."""
    metric = tasks[0].main_metric
    spec = tasks[0].metric_spec(metric)
    values = {
        task.name: [
            result[split].get(task.name, {}).get(metric, np.nan) for split in ("test", "validation")
        ]
        for task in tasks
    }
    known = {name: pair for name, pair in values.items() if np.isfinite(pair[0])}
    if not known:
        return None
    names = sorted(known, key=lambda name: known[name][0], reverse=not tasks[0].higher_is_better)
    tests, validations = np.array([known[name] for name in names]).T
    rows = range(len(names))
    axis.hlines(rows, tests, validations, color="#c3c9d3", lw=1)
    axis.plot(validations, rows, "o", color=ORANGE, mfc="white", ms=4, ls="none")
    axis.plot(tests, rows, "o", color=BLUE, ms=4.5, ls="none")
    axis.set_yticks(rows, [_short(name, 30) for name in names], fontsize=8)
    axis.set_ylim(-0.7, len(names) - 0.3)
    axis.xaxis.set_major_locator(MaxNLocator(5))
    axis.xaxis.set_major_formatter(lambda x, _: spec.format_tick(x))
    axis.set_xlabel(spec.label)
    worst, best = (f"{_short(names[i], 30)} {spec.format(tests[i])}" for i in (0, -1))
    return f"Test {spec.label}: from {worst} to {best}"


def weights_in_words(tasks: Sequence[Task], history: Sequence[dict], balancer: str) -> str | None:
    """Says what there is to say about weights that are not worth a picture; None if they are."""
    weights = _weights(tasks, history)
    if not weights:
        return (
            f"{balancer} gives a direction made of the tasks' gradients, not a weight for each "
            "task, so there are no weights to draw."
        )
    drawn = any(len(w.values) > 1 and np.ptp(w.values) > 1e-6 for w in weights.values())
    if drawn:
        return None
    values = {round(float(w.values[0]), 6) for w in weights.values()}
    if len(values) == 1:
        shown = f"{number(values.pop())} for every task"
    else:
        shown = ", ".join(f"{name} {number(w.values[0])}" for name, w in weights.items())
    return f"{balancer} kept the weights of the tasks' losses constant: {shown}."


def draw_weights(
    axis: Axes, tasks: Sequence[Task], history: Sequence[dict], balancer: str
) -> str | None:
    """The balancer's weights over time, each line named at its end."""
    if weights_in_words(tasks, history, balancer) is not None:
        return None
    weights = _weights(tasks, history)
    late = {name: float(w.tail(0.25).mean()) for name, w in weights.items()}
    ranked = sorted(late, key=lambda name: late[name], reverse=True)
    named = ranked
    if len(ranked) > _NAMED_LINES:
        named = ranked[: _NAMED_LINES // 2] + ranked[-_NAMED_LINES // 2 :]
    for name in ranked:
        if name not in named:
            _line(axis, weights[name].thinned(), color="#d5d9e0", lw=0.8)
    names = [task.name for task in tasks if task.name in named]
    colors = dict(zip(names, COLORS, strict=False))
    for name in names:
        _line(axis, weights[name].thinned(), color=colors[name])
    scale_axis(axis, np.concatenate([w.values for w in weights.values()]))
    axis.set_ylabel("weight of the task's loss")
    _finish(axis, history)
    _name_lines(axis, {name: weights[name].thinned().values[-1] for name in names}, colors)
    shown = ", ".join(f"{name} {number(late[name])}" for name in named[:3])
    rest = f", ... {named[-1]} {number(late[named[-1]])}" if len(named) > 3 else ""
    return f"Weights by {balancer}, mean of the run's last quarter: {shown}{rest}"


def draw_agreement(axis: Axes, tasks: Sequence[Task], history: Sequence[dict]) -> str | None:
    """The cosine between the gradients of each two tasks, over the steps, as a heat map."""
    lines = [line for line in history if "telemetry" in line]
    if not lines or len(tasks) < 2:
        return None
    cosines = np.array([line["telemetry"]["cosine"] for line in lines], float)
    pairs = np.array(list(itertools.combinations(range(len(tasks)), 2)))
    rows = cosines[:, pairs[:, 0], pairs[:, 1]].T
    order = np.argsort(rows.mean(1))[:_NAMED_PAIRS]
    # A line is written at the end of a chunk; what is measured is of its first step.
    steps = np.array([line["step"] for line in lines], float)
    edges = np.append(steps, steps[-1] + (steps[-1] - steps[-2] if len(steps) > 1 else steps[-1]))
    shades = axis.pcolormesh(
        edges, np.arange(len(order) + 1), rows[order], cmap="RdBu", vmin=-1, vmax=1
    )
    axis.grid(False)
    names = [f"{_short(tasks[i].name, 11)} · {_short(tasks[j].name, 11)}" for i, j in pairs[order]]
    axis.set_yticks(np.arange(len(order)) + 0.5, names, fontsize=8)
    axis.invert_yaxis()
    axis.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    axis.set_xlabel("step")
    axis.figure.colorbar(shades, ax=axis, label="cosine", shrink=0.9)
    apart = np.mean([line["telemetry"]["conflicting"] for line in lines])
    which = "the tasks' gradients" if len(pairs) == 1 else f"two of {len(tasks)} tasks' gradients"
    title = f"{which} pointed apart in {100 * apart:.0f} % of {len(lines)} measurements"
    return title[0].upper() + title[1:]


def draw_curvature(axis: Axes, history: Sequence[dict]) -> str | None:
    """How the tasks' losses together curve along the updates, over the steps."""
    curving = series(history, "telemetry", "curvature").finite()
    if not len(curving.steps):
        return None
    _draw_number(axis, history, curving, "curvature along the update")
    down = 100 * np.mean(curving.values < 0)
    late = number(float(np.median(curving.tail(0.25))))
    bent = f", bent downwards in {down:.0f} % of measurements" if down else ""
    return f"Curvature of the losses along the update: {late} in the last quarter{bent}"


def draw_gradient_norm(axis: Axes, history: Sequence[dict]) -> str | None:
    """The length of the balanced gradient."""
    norm = series(history, "grad_norm").finite()
    if not len(norm.steps):
        return None
    _draw_number(axis, history, norm, "norm of the gradient")
    late = float(np.median(norm.tail(0.25)))
    if len(norm.steps) == 1:
        return f"Gradient norm {number(late)} at the only logged step"
    return f"Gradient norm: {number(norm.values[0])} at first, {number(late)} in the last quarter"


def draw_speed(axis: Axes, history: Sequence[dict]) -> str | None:
    """Throughput, as the loop measured it."""
    speed = series(history, "examples_per_second").finite()
    if not len(speed.steps):
        return None
    _line(axis, speed.thinned(), color=GRAY, lw=1.2)
    axis.set_ylim(0, 1.1 * max(speed.values.max(), 1e-9))
    axis.set_ylabel("images per second")
    axis.yaxis.set_major_formatter(lambda y, _: f"{y:,.0f}" if y >= 10 else f"{y:g}")
    _finish(axis, history)
    return f"Throughput: {number(float(np.median(speed.values)))} images a second in the median"


def _weights(tasks: Sequence[Task], history: Sequence[dict]) -> dict[str, Series]:
    found = {task.name: series(history, "weight", task.name).finite() for task in tasks}
    return {name: weight for name, weight in found.items() if len(weight.steps)}


def _draw_number(axis: Axes, history: Sequence[dict], points: Series, label: str) -> None:
    _line(axis, points.thinned(), color=GRAY, lw=1.2)
    scale_axis(axis, points.values)
    axis.set_ylabel(label)
    _finish(axis, history)


def _line(axis: Axes, points: Series, **style) -> None:
    if len(points.steps) == 1:
        style.setdefault("marker", "o")
    axis.plot(points.steps, points.values, **style)


def _mark_best(axis: Axes, best: int | None) -> None:
    if best is not None:
        axis.axvline(best, color="#14171c", lw=1, ls=(0, (3, 3)), label=f"chosen: step {best:,}")


def _finish(axis: Axes, history: Sequence[dict]) -> None:
    """The x axis, the same in all curves."""
    last = max((line["step"] for line in history), default=1)
    axis.set_xlim(0, last * 1.02)
    axis.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    axis.xaxis.set_major_formatter(lambda x, _: f"{x:,.0f}")
    epoch = steps_per_epoch(history)
    axis.set_xlabel(f"step (an epoch is {number(epoch)} steps)" if epoch else "step")


def _name_lines(axis: Axes, ends: dict[str, float], colors: dict[str, str]) -> None:
    """Names beside the lines' ends, pushed apart where they would overlap."""
    low, high = axis.get_ylim()
    scale = axis.yaxis.get_transform().transform
    low, high, *heights = scale(np.array([low, high, *ends.values()]))
    places = (np.array(heights) - low) / (high - low)
    order, gap = np.argsort(places), 0.075
    placed = places[order]
    for i in range(1, len(placed)):
        placed[i] = max(placed[i], placed[i - 1] + gap)
    placed -= max(0.0, placed[-1] - 1.0)
    names = list(ends)
    for index, place in zip(order, placed, strict=True):
        axis.text(
            1.01,
            place,
            _short(names[index]),
            color=colors[names[index]],
            transform=axis.transAxes,
            va="center",
            fontsize=8.5,
        )


def _short(name: str, room: int = 18) -> str:
    return name if len(name) <= room else name[: room - 1] + "…"
