"""Selection of the best checkpoint, by the experiment's `select`."""

import math
import sys
from collections.abc import Sequence
from typing import NamedTuple

import jax
import numpy as np

from mtljax.config import Experiment
from mtljax.tasks import Task
from mtljax.tasks.metric import SplitMetrics
from mtljax.utils.registry import nearest

LOSS = "loss"
"""Criterion of all tasks: the mean logarithm of their losses."""


class Term(NamedTuple):
    """Term of a criterion."""

    name: str
    """`LOSS`, or TASK/METRIC."""
    weight: float
    """Weight > 0."""


def parse_select(text: str, known: Sequence[str] = ()) -> list[Term]:
    """Parses `select`: TERM+TERM+..., where a term is NAME, WEIGHT:NAME or WEIGHT*NAME.

    Args:
      text: The criterion.
      known: Names that are not split even if they contain + or *.

    Raises:
      ValueError: A weight is not a positive number.

    Example:
      >>> parse_select("a/macro_f1+0.5:b/mae")
      [Term(name='a/macro_f1', weight=1.0), Term(name='b/mae', weight=0.5)]
    """
    if text in known:
        return [Term(text, 1.0)]
    terms = []
    for part in text.split("+"):
        separator = ":" if ":" in part else "*"
        weight, has_weight, name = part.rpartition(separator)
        if part in known or not has_weight:
            terms.append(Term(part.strip(), 1.0))
            continue
        try:
            value = float(weight)
        except ValueError:
            value = math.nan
        if not 0 < value < math.inf:
            raise ValueError(
                f"select cannot be {text!r}: the weight {weight.strip()!r} must be a number > 0; "
                "metrics of which less is better count as negative without a sign"
            )
        terms.append(Term(name.strip(), value))
    return terms


def directions(tasks: Sequence[Task]) -> dict[str, bool]:
    """Returns {name: True if higher is better} of all criteria that `select` can contain.

    They are the numbers among the tasks' metrics that have a direction, the losses, and `LOSS`.
    """
    directions_of = {LOSS: False}
    for task in tasks:
        computed = task.metrics.compute(jax.device_get(task.metrics.empty()))  # for the names
        numbers = [name for name, value in computed.items() if np.ndim(value) == 0]
        ways = {name: task.metric_spec(name).higher_is_better for name in (*numbers, LOSS)}
        ways |= {task.main_metric: task.higher_is_better, **dict(task.compared)}
        directions_of |= {f"{task.name}/{n}": way for n, way in ways.items() if way is not None}
    return directions_of


def check_select(experiment: Experiment) -> None:
    """Checks the experiment's `select`.

    Raises:
      ValueError: It names an unknown task or metric, or a metric without a direction.
    """
    known = directions(experiment.tasks)
    for name, _ in parse_select(experiment.select, list(known)):
        if name not in known:
            whole = "" if name == experiment.select else f": unknown criterion {name!r}"
            raise ValueError(
                f"select cannot be {experiment.select!r}{whole}{nearest(name, set(known))}"
            )


def select_of_task(text: str, task: str) -> str:
    """Returns the part of a `select` that is about one task; `LOSS` if there is none.

    Example:
      >>> select_of_task("a/accuracy+0.5:b/mae", "b")
      '0.5:b/mae'
    """
    if text.startswith(f"{task}/") and "+" not in text:
        return text
    terms = [term for term in parse_select(text) if term.name.startswith(f"{task}/")]
    return "+".join(n if w == 1 else f"{w}:{n}" for n, w in terms) or LOSS


def selection_score(experiment: Experiment, metrics: SplitMetrics) -> float:
    """Returns the score of a checkpoint by a valid `select`; lower is better."""
    known = directions(experiment.tasks)
    score = 0.0
    for name, weight in parse_select(experiment.select, list(known)):
        score += weight * (-1 if known[name] else 1) * _value(experiment, metrics, name)
    return score if math.isfinite(score) else sys.float_info.max


def _value(experiment: Experiment, metrics: SplitMetrics, name: str) -> float:
    if name == LOSS:
        losses = [metrics[task.name]["loss"] for task in experiment.tasks]
        positive = [max(loss, 1e-12) for loss in losses if not math.isnan(loss)]
        return float(np.mean(np.log(positive))) if positive else math.nan
    task, _, metric = name.partition("/")
    return float(metrics[task][metric])
