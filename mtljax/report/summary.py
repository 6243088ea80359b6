"""Numbers and findings in words."""

import math
import statistics
from collections.abc import Sequence
from typing import Any

from mtljax.tasks import Task
from mtljax.utils.text import count, joined


def main_result(task: Task, measured: dict[str, dict[str, Any]]) -> str:
    """A task's main metric: "accuracy 98.9 % for digit"."""
    value = measured.get(task.name, {}).get(task.main_metric)
    spec = task.metric_spec(task.main_metric)
    if value is None or not math.isfinite(value):
        return f"{spec.label} not measured for {task.name}"
    return f"{spec.label} {spec.format(value)} for {task.name}"


def main_results(tasks: Sequence[Task], measured: dict[str, dict[str, Any]]) -> str:
    """All tasks' main metrics; of many tasks the range and the median per kind of metric."""
    if len(tasks) <= 6:
        return joined([main_result(task, measured) for task in tasks])
    parts = []
    for metric in dict.fromkeys(task.main_metric for task in tasks):
        group = [task for task in tasks if task.main_metric == metric]
        spec = group[0].metric_spec(metric)
        values = {task.name: measured.get(task.name, {}).get(metric) for task in group}
        known = {k: v for k, v in values.items() if v is not None and math.isfinite(v)}
        if not known:
            parts.append(f"{spec.label} of {count(len(values), 'task')} not measured")
            continue
        ranked = sorted(known, key=lambda name: known[name])
        low, high = ranked[0], ranked[-1]
        middle = spec.format(statistics.median(known.values()))
        parts.append(
            f"{spec.label} of {count(len(known), 'task')} between "
            f"{spec.format(known[low])} ({low}) and {spec.format(known[high])} "
            f"({high}), median {middle}"
        )
    return joined(parts)


def constant_predictor_result(task: Task, result: dict) -> float | None:
    """The main metric on test of one answer for every image, the best on training labels."""
    return result.get("trivial", {}).get(task.name, {}).get(task.main_metric)


def learned_nothing(task: Task, result: dict) -> bool:
    """Whether such an answer is as good as the network's."""
    found, trivial = result["test"].get(task.name, {}), constant_predictor_result(task, result)
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
