"""Selection of the best checkpoint, by the experiment's `select`."""

import math
import sys

import numpy as np

from mtljax.config import Experiment
from mtljax.tasks.base import SplitMetrics
from mtljax.utils.registry import nearest


def check_select(experiment: Experiment) -> None:
    """Checks the experiment's `select`.

    Raises:
      ValueError: It names an unknown task, or a metric other than the loss and the main metric.
    """
    known = ["loss", *(f"{task.name}/loss" for task in experiment.tasks)]
    known += [f"{task.name}/{task.main_metric}" for task in experiment.tasks]
    if experiment.select not in known:
        raise ValueError(
            f"select cannot be {experiment.select!r}{nearest(experiment.select, set(known))}"
        )


def selection_score(experiment: Experiment, metrics: SplitMetrics) -> float:
    """Returns the score of a checkpoint by a valid `select`; lower is better."""
    if experiment.select == "loss":
        losses = [metrics[task.name]["loss"] for task in experiment.tasks]
        known = [max(loss, 1e-12) for loss in losses if not math.isnan(loss)]
        score = float(np.mean(np.log(known))) if known else math.nan
    else:
        name, _, metric = experiment.select.partition("/")
        (task,) = (task for task in experiment.tasks if task.name == name)
        score = float(metrics[name][metric])
        if metric == task.main_metric and task.higher_is_better:
            score = -score
    return score if math.isfinite(score) else sys.float_info.max
