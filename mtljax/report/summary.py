"""Summary of a run's result in sentences."""

import math
import statistics
from collections.abc import Mapping, Sequence

from mtljax.runs.result import RunResult
from mtljax.tasks import Task
from mtljax.tasks.metric import SplitMetrics
from mtljax.utils.text import count, joined


def main_result(task: Task, metrics: SplitMetrics) -> str:
    """Returns a task's main metric as text: "accuracy 98.9 % for digit"."""
    value = metrics.get(task.name, {}).get(task.main_metric)
    spec = task.metric_spec(task.main_metric)
    if value is None or not math.isfinite(value):
        return f"{spec.label} not measured for {task.name}"
    return f"{spec.label} {spec.format(value)} for {task.name}"


def main_results(tasks: Sequence[Task], metrics: SplitMetrics) -> str:
    """Returns all main metrics as text; for many tasks, range and median per kind of metric."""
    if len(tasks) <= 6:
        return joined([main_result(task, metrics) for task in tasks])
    parts = []
    for metric in dict.fromkeys(task.main_metric for task in tasks):
        group = [task for task in tasks if task.main_metric == metric]
        spec = group[0].metric_spec(metric)
        values = {task.name: metrics.get(task.name, {}).get(metric) for task in group}
        known = {k: v for k, v in values.items() if v is not None and math.isfinite(v)}
        if not known:
            parts.append(f"{spec.label} of {count(len(values), 'task')} not measured")
            continue
        low, high = min(known, key=known.__getitem__), max(known, key=known.__getitem__)
        if len(known) <= 2:
            parts += [main_result(task, metrics) for task in group if task.name in known]
            continue
        if spec.format(known[low]) == spec.format(known[high]):
            parts.append(f"{spec.label} {spec.format(known[low])} for each of {len(known)} tasks")
            continue
        parts.append(
            f"{spec.label} of {count(len(known), 'task')} between "
            f"{spec.format(known[low])} ({low}) and {spec.format(known[high])} ({high}), "
            f"median {spec.format(statistics.median(known.values()))}"
        )
    return joined(parts)


def constant_predictor_result(task: Task, result: RunResult) -> float | None:
    """Returns the main metric of the constant-predictor baseline; None if it is unknown."""
    return result.constant_predictor.get(task.name, {}).get(task.main_metric)


def beats_constant_predictor(task: Task, result: RunResult) -> bool:
    """True if the network has a better main metric than the baseline, or one is unknown."""
    value = result.test.get(task.name, {}).get(task.main_metric)
    baseline = constant_predictor_result(task, result)
    if value is None or baseline is None:
        return True
    return not (value <= baseline if task.higher_is_better else value >= baseline)


def headline(tasks: Sequence[Task], result: RunResult, images: int) -> str:
    """Returns the test metrics, and the selected step, in one or two sentences."""
    sentence = f"On {count(images, 'test image')}: {main_results(tasks, result.test)}."
    if result.best_step is None:
        return sentence
    if result.merged is not None:
        runs = count(len(result.merged["runs"]), "run")
        return f"{sentence} Parameters of {runs}, {result.selection}."
    return f"{sentence} Parameters of {result.selection}, selected on validation{result.condition}."


def sample_note(images: int, total: int) -> str:
    """Returns which figures are drawn from a sample of the test split; "" for the entire split."""
    if images == total:
        return ""
    return (
        f"Metrics, confusion matrices and bars are of all {total:,} test images. Scatter plots and "
        f"pictures are of a random sample of {images:,}."
    )


def remarks(tasks: Sequence[Task], result: RunResult, labeled: Mapping[str, int]) -> list[str]:
    """Returns warnings; `labeled` is the number of test images with a label of each task."""
    sentences = []
    if result.skipped:
        updates = f"{count(result.skipped, 'update')} of {result.last_step:,}"
        sentences.append(
            f"Skipped because not finite: {updates}. A lower learning rate or gradient clipping "
            "may help."
        )
    if result.stopped_step is not None:
        steps = f"step {result.stopped_step:,} of {result.steps:,}"
        sentences.append(f"Training stopped early, at {steps}.")
    if result.test_looks > 1:
        sentences.append(
            f"This is result {result.test_looks} of this run on the test split: choose the number "
            "of steps on validation."
        )
    if result.best_step == result.steps:
        sentences.append("The last step was the best on validation: longer training may help.")
    constant = [task.name for task in tasks if not beats_constant_predictor(task, result)]
    if constant:
        sentences.append(f"No better than the constant-predictor baseline: {joined(constant)}.")
    unlabeled = [task.name for task in tasks if not labeled[task.name]]
    if unlabeled:
        sentences.append(f"No test image has a label of {joined(unlabeled)}.")
    return sentences


def task_summary(task: Task, result: RunResult, labeled: int) -> str:
    """Returns the kind of a task and its test result, measured on `labeled` examples."""
    kind = type(task).__name__
    counts = result.parameters.task_specific if result.parameters else {}
    if task.name in counts:
        kind += f", {count(counts[task.name], 'task-specific parameter')}"
    if not labeled:
        return f"{kind}. No test image has a label of this task."
    summary = f"{kind}. Test: {main_result(task, result.test)} ({count(labeled, 'label')})."
    baseline = constant_predictor_result(task, result)
    if baseline is not None and not math.isnan(baseline):
        value = task.metric_spec(task.main_metric).format(baseline)
        summary += f" Constant-predictor baseline: {value}."
    return summary
