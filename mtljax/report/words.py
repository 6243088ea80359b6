"""Numbers and findings in words."""

import math
import statistics
from collections.abc import Sequence
from typing import Any

from mtljax.tasks import Task
from mtljax.utils.text import count, joined, number

METRIC_NAMES = {
    "loss": "loss",
    "accuracy": "accuracy",
    "macro_f1": "macro F1",
    "mae": "mean absolute error",
    "rmse": "root mean square error",
    "r2": "R²",
    "miou": "mean IoU",
    "abs_err": "mean absolute error",
    "abs_rel": "mean relative error",
    "log_rmse": "root mean square log error",
    "mean": "mean angle",
    "median": "median angle",
    "within_11.25": "within 11.25°",
    "within_22.5": "within 22.5°",
    "within_30": "within 30°",
    "max_f": "best F",
    "ods": "F at the best threshold of all",
    "ois": "F at each image's best threshold",
    "ods_threshold": "best threshold of all",
    "map": "mean average precision",
    "map_50": "mean average precision at IoU 0.5",
    "map_75": "mean average precision at IoU 0.75",
    "f1": "mean F1",
    "nme": "normalised mean error",
    "pck": "share of points found",
    "auc": "area under the curve of points found",
    "psnr": "PSNR",
    "ssim": "SSIM",
}
"""What a person calls a metric; others are called by their own name."""


def metric_name(metric: str) -> str:
    """What a person calls a metric."""
    return METRIC_NAMES.get(metric, metric.replace("_", " "))


def metric_value(metric: str, value: float | None, digits: int = 3) -> str:
    """A metric's value with its unit: an accuracy in percent, an angle in degrees."""
    if metric in ("mean", "median") and value is not None and math.isfinite(value):
        return f"{number(value, digits)}°"
    if metric.endswith("accuracy") and value is not None and math.isfinite(value):
        return f"{100 * value:.{max(digits - 2, 0)}f} %"
    if metric == "r2" and value is not None and abs(value) < 1e-5:
        value = 0.0  # of one answer for all it is that, but for rounding
    return number(value, digits)


def metric_tick(metric: str, value: float) -> str:
    """A metric's value at a mark of an axis, where round numbers stand."""
    return f"{100 * value:.6g} %" if metric.endswith("accuracy") else f"{value:.6g}"


def main_result(task: Task, measured: dict[str, dict[str, Any]]) -> str:
    """A task's main metric: "accuracy 98.9 % for digit"."""
    value = measured.get(task.name, {}).get(task.main_metric)
    name = metric_name(task.main_metric)
    if value is None or not math.isfinite(value):
        return f"{name} not measured for {task.name}"
    return f"{name} {metric_value(task.main_metric, value)} for {task.name}"


def main_results(tasks: Sequence[Task], measured: dict[str, dict[str, Any]]) -> str:
    """All tasks' main metrics; of many tasks the range and the median per kind of metric."""
    if len(tasks) <= 6:
        return joined([main_result(task, measured) for task in tasks])
    parts = []
    for metric in dict.fromkeys(task.main_metric for task in tasks):
        values = {
            task.name: measured.get(task.name, {}).get(metric)
            for task in tasks
            if task.main_metric == metric
        }
        known = {k: v for k, v in values.items() if v is not None and math.isfinite(v)}
        if not known:
            parts.append(f"{metric_name(metric)} of {count(len(values), 'task')} not measured")
            continue
        ranked = sorted(known, key=lambda name: known[name])
        low, high = ranked[0], ranked[-1]
        middle = metric_value(metric, statistics.median(known.values()))
        parts.append(
            f"{metric_name(metric)} of {count(len(known), 'task')} between "
            f"{metric_value(metric, known[low])} ({low}) and {metric_value(metric, known[high])} "
            f"({high}), median {middle}"
        )
    return joined(parts)


def trivial_result(task: Task, result: dict) -> float | None:
    """The main metric on test of one answer for every image, the best on training labels."""
    return result.get("trivial", {}).get(task.name, {}).get(task.main_metric)


def learned_nothing(task: Task, result: dict) -> bool:
    """Whether such an answer is as good as the network's."""
    found, trivial = result["test"].get(task.name, {}), trivial_result(task, result)
    if trivial is None or task.main_metric not in found:
        return False
    value = found[task.main_metric]
    return value <= trivial if task.higher_is_better else value >= trivial


def headline(tasks: Sequence[Task], result: dict, images: int) -> str:
    """What came out, in one or two sentences."""
    sentence = f"On {count(images, 'test image')}: {main_results(tasks, result['test'])}."
    if result.get("best_step") is not None:
        sentence += (
            f" The parameters are those of step {result['best_step']:,} of {result['steps']:,}, "
            "chosen on validation."
        )
    return sentence


def remarks(tasks: Sequence[Task], result: dict, labelled: dict[str, int]) -> list[str]:
    """What a reader should know before trusting the numbers."""
    found = []
    if result.get("skipped"):
        found.append(
            f"Left out, because not finite: {count(result['skipped'], 'update')} of "
            f"{result['steps']:,}. A lower learning rate or clipping may help."
        )
    if result.get("best_step") == result["steps"]:
        found.append(
            "The last step was the best on validation: more steps may give a better network."
        )
    hopeless = [task.name for task in tasks if learned_nothing(task, result)]
    if hopeless:
        found.append(
            f"No better than one answer for every image: the network for {joined(hopeless)}."
        )
    unlabelled = [task.name for task in tasks if not labelled[task.name]]
    if unlabelled:
        found.append(f"No test image carries a label of {joined(unlabelled)}.")
    return found


def balancer_name(config: dict) -> str:
    """What the configuration calls the balancer."""
    balancer = config.get("balancer")
    if isinstance(balancer, dict):
        balancer = balancer.get("name")
    return str(balancer) if balancer else "The balancer"
