"""The page of one run: what the template needs, made ready."""

import base64
import json
import math
import numbers
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jinja2

from mtljax.evaluation.predictions import Predictions
from mtljax.report.figures import Picture
from mtljax.report.summary import constant_predictor_result, headline, main_result, remarks
from mtljax.tasks import Task
from mtljax.utils.text import count, number
from mtljax.utils.tree import flatten_json

_OPEN_TASKS = 6
_EXPLANATIONS = {
    "weights": "How much each task's loss counted in the update of the shared parameters.",
    "validation_metric": "Over the whole validation split. Dashed: the chosen step.",
    "agreement": "Cosine between the gradients of two tasks' losses with respect to the shared "
    "parameters, on one training batch each time. Red: they pull apart; pairs that do most first.",
    "gradient_norm": "Of the balanced gradient that the optimizer received.",
    "curvature": "Second derivative of the sum of the tasks' losses on a batch along the change of "
    "the shared parameters in the steps that follow. Below 0: the further, the steeper downwards.",
    "throughput": "Counted by the training loop, with everything that it does between two logs.",
}


class TaskPart(NamedTuple):
    """A task and its pictures, where there is something to show."""

    task: Task
    loss: Picture | None
    test: Picture | None
    worst: Picture | None

    @property
    def pictures(self) -> list[Picture]:
        """Those that there are."""
        return [p for p in (self.loss, self.test, self.worst) if p is not None]


class Row(NamedTuple):
    """A line of the table of metrics."""

    metric: str
    direction: str
    """What is better, of the task's main metric; else empty."""
    validation: str
    test: str
    trivial: str
    """On test, of one answer for every image; empty if not known."""


def render(
    *,
    title: str,
    config: dict,
    tasks: Sequence[Task],
    parts: list[TaskPart],
    ranking: list[Picture],
    result: dict,
    test: Predictions,
    training: list[Picture],
    weights_in_words: str | None,
    examples: Picture | None,
) -> str:
    """The whole page, with all that it shows inside."""
    labelled = {name: int(present.sum()) for name, present in test.present.items()}
    return template("run.html.jinja").render(
        title=title,
        headline=headline(tasks, result, len(test.images)),
        remarks=remarks(tasks, result, labelled),
        facts=_facts(result),
        tasks=tasks,
        parts=parts,
        ranking=ranking,
        few_tasks=len(tasks) <= _OPEN_TASKS,
        rows={task.name: metric_rows(task, result) for task in tasks},
        summaries={task.name: _summary(task, result, labelled[task.name]) for task in tasks},
        best_step=result.get("best_step"),
        training=training,
        explanations=_EXPLANATIONS,
        weights_in_words=weights_in_words,
        examples=examples,
        settings=settings_text(config),
        environment=result.get("environment", {}),
    )


def template(name: str, package: str = "mtljax.report") -> jinja2.Template:
    """Returns a template of a package; it may include those of `mtljax.report`."""
    environment = jinja2.Environment(
        loader=jinja2.ChoiceLoader(
            [jinja2.PackageLoader(name, ".") for name in dict.fromkeys([package, "mtljax.report"])]
        ),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals["data_uri"] = _data_uri
    return environment.get_template(name)


def metric_rows(task: Task, result: dict) -> list[Row]:
    """Every metric of a task that is a single number, its main metric first."""
    validation, test = (result[split].get(task.name, {}) for split in ("validation", "test"))
    trivial = result.get("trivial", {}).get(task.name, {})
    names = [
        name
        for name in dict.fromkeys([task.main_metric, *validation, *test])
        if _is_number(validation.get(name)) or _is_number(test.get(name))
    ]
    better = "higher is better" if task.higher_is_better else "lower is better"
    return [
        Row(
            spec.label,
            better if name == task.main_metric else "",
            spec.format(validation.get(name), 4),
            spec.format(test.get(name), 4),
            spec.format(trivial[name], 4) if name in trivial else "",
        )
        for name, spec in ((name, task.metric_spec(name)) for name in names)
    ]


def settings_text(config: Mapping[str, Any]) -> list[tuple[str, str]]:
    """("data.batch_size", "64"), ... of nested JSON."""
    text = lambda value: value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return [(path, text(value)) for path, value in flatten_json(config).items()]


def _facts(result: dict) -> list[tuple[str, str, str]]:
    """(what, how much, more about it)."""
    parameters, steps = result["parameters"], result["steps"]
    share = 100 * parameters["shared"] / max(parameters["total"], 1)
    best = result.get("best_step")
    return [
        ("Chosen step", "none" if best is None else f"{best:,}", f"of {steps:,} steps"),
        ("Parameters", f"{parameters['total']:,}", f"{share:.1f} % shared by all tasks"),
        (
            "Training",
            f"{number(result['train_seconds'])} s",
            f"{number(result['seconds'])} s from the start, on {result['device']}",
        ),
        (
            "Speed",
            f"{number(result['ms_per_step'])} ms a step",
            f"{number(result['examples_per_second'])} images a second",
        ),
    ]


def _summary(task: Task, result: dict, labelled: int) -> str:
    kind = type(task).__name__
    specific = result["parameters"]["task_specific"].get(task.name)
    own = "" if specific is None else f", {count(specific, 'parameter')} of its own"
    if not labelled:
        return f"{kind}{own}. No test image carries its label."
    trivial = constant_predictor_result(task, result)
    floor = ""
    if trivial is not None and not math.isnan(trivial):
        same = task.metric_spec(task.main_metric).format(trivial)
        floor = f" One answer for every image, the best on training labels, gets {same}."
    main = main_result(task, result["test"])
    return f"{kind}{own}. Test: {main} ({count(labelled, 'label')}).{floor}"


def _is_number(value: Any) -> bool:
    return isinstance(value, numbers.Real) and not isinstance(value, bool)


def _data_uri(picture: Picture) -> str:
    return "data:image/png;base64," + base64.b64encode(picture.png).decode()
