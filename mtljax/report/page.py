"""Templates of the pages, and the data in the template of a run."""

import base64
import json
import numbers
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jinja2
import numpy as np

from mtljax.config import Experiment, to_json
from mtljax.report.figures import Plot, existing, write_plots
from mtljax.runs.result import RunResult
from mtljax.tasks import Task
from mtljax.tasks.base import TaskMetrics
from mtljax.utils.files import write_text
from mtljax.utils.text import number
from mtljax.utils.tree import flatten_json

CAPTIONS = {
    "weights": "Weight of each task's loss in the update of the shared parameters.",
    "validation_metric": "Entire validation split. Dashed: the selected step.",
    "agreement": "Cosine between the gradients of two tasks' losses with respect to the shared "
    "parameters, on one training batch each time. Red: conflict. Pairs are sorted by their mean.",
    "gradient_norm": "Norm of the balanced gradient that the optimizer receives.",
    "curvature": "Second derivative of the sum of the task losses on a batch, along the change of "
    "the shared parameters in the following steps. Negative: concave in that direction.",
    "throughput": "Measured by the training loop between two log steps, with all its work.",
}
"""Captions of the figures of the training, by their names."""
_FEW_CLASSES = 20
"""Number of classes up to which a confusion matrix shows numbers."""
_PAIRS = 20
"""Maximum number of confused pairs in a table."""
WIDE = 1000
"""Pixels of a figure above which it is shown over the entire width, or scrolled."""


class TaskSection(NamedTuple):
    """Figures of a task; None if there are no data to draw."""

    task: Task
    """The task."""
    loss: Plot | None
    """Curves of the loss."""
    test: Plot | None
    """Test results, such as a confusion matrix."""
    worst: Plot | None
    """Examples with the largest errors."""
    confused: "Sequence[ConfusedPair]" = ()
    """Most frequent confusions, of a task with many classes."""

    @property
    def plots(self) -> list[Plot]:
        """Existing figures."""
        return existing(self.loss, self.test, self.worst)


class ConfusedPair(NamedTuple):
    """Two classes of which one is predicted for the other."""

    true: str
    """Class of the label."""
    predicted: str
    """Predicted class."""
    images: str
    """Number of images."""
    share: str
    """Of the images of the true class."""


class MetricRow(NamedTuple):
    """Row of the table of metrics."""

    metric: str
    """Name of the metric."""
    direction: str
    """Direction of better values of the task's main metric; empty for other metrics."""
    validation: str
    """Value on the validation split."""
    test: str
    """Value on the test split."""
    constant_predictor: str
    """Test metric of the constant-predictor baseline; empty if unknown."""


class Fact(NamedTuple):
    """Key number of a run."""

    name: str
    """Heading."""
    value: str
    """The number."""
    details: str
    """Line below the number."""


def load_template(name: str, package: str = "mtljax.report") -> jinja2.Template:
    """Returns a template of a package; it may include templates of `mtljax.report`."""
    packages = dict.fromkeys([package, "mtljax.report"])
    environment = jinja2.Environment(
        loader=jinja2.ChoiceLoader([jinja2.PackageLoader(name, ".") for name in packages]),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals["data_uri"] = _data_uri
    environment.globals["wide"] = WIDE
    return environment.get_template(name)


def write_plotted_page(
    workdir: Path,
    package: str,
    template: str,
    plots: Sequence[Plot],
    captions: Mapping[str, str],
    **values: Any,
) -> None:
    """Writes a self-contained page with plots, `report.html`, and `plots/*.png`.

    Args:
      workdir: An existing folder.
      package: Package of the template.
      captions: Caption of each plot, by its name without the number of plots of one kind.
      values: Other values of the template.
    """
    caption = lambda plot: captions[plot.name.rstrip("_0123456789")]
    page = load_template(template, package).render(plots=plots, caption=caption, **values)
    write_plots(workdir, plots)
    write_text(workdir / "report.html", page)


def settings_text(experiment: Experiment) -> list[tuple[str, str]]:
    """Returns ("data.batch_size", "64"), ... of an experiment."""
    text = lambda value: value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return [(path, text(value)) for path, value in flatten_json(to_json(experiment)).items()]


def metric_rows(task: Task, result: RunResult) -> list[MetricRow]:
    """Returns the rows of the scalar metrics of a task, the main metric first."""
    validation, test, baseline = (
        split.get(task.name, {})
        for split in (result.validation, result.test, result.constant_predictor)
    )
    better = "higher is better" if task.higher_is_better else "lower is better"
    rows = []
    for name in dict.fromkeys([task.main_metric, *validation, *test]):
        if not _is_number(validation.get(name)) and not _is_number(test.get(name)):
            continue
        spec = task.metric_spec(name)
        direction = better if name == task.main_metric else ""
        on_validation, on_test = (spec.format(m.get(name), 4) for m in (validation, test))
        constant = spec.format(baseline[name], 4) if name in baseline else ""
        rows.append(MetricRow(spec.label, direction, on_validation, on_test, constant))
    return rows


def confused_pairs(task: Task, metrics: TaskMetrics) -> list[ConfusedPair]:
    """Returns the most frequent confusions of a task with many classes."""
    confusion = np.asarray(metrics.get("confusion", ()), int)
    if confusion.ndim != 2 or len(confusion) <= _FEW_CLASSES:
        return []
    totals = confusion.sum(1)
    wrong = confusion - np.diag(np.diagonal(confusion))
    order = np.argsort(-wrong, axis=None, kind="stable")[:_PAIRS]
    rows = [divmod(int(i), len(confusion)) for i in order if wrong.flat[i]]
    return [
        ConfusedPair(
            task.text(true),
            task.text(predicted),
            f"{wrong[true, predicted]:,}",
            f"{100 * wrong[true, predicted] / totals[true]:.0f} %",
        )
        for true, predicted in rows
    ]


def key_numbers(result: RunResult) -> list[Fact]:
    """Returns the key numbers of a run."""
    facts = [Fact("Selected step", f"{result.best_step:,}", f"of {result.last_step:,} steps")]
    if result.merged is not None:
        facts = [Fact("Merged by", result.merged["method"], ", ".join(result.merged["runs"]))]
    if result.parameters is not None:
        total, shared = result.parameters.total, result.parameters.shared
        fraction = 100 * shared / max(total, 1)
        facts.append(Fact("Parameters", f"{total:,}", f"{fraction:.1f} % shared by all tasks"))
    total_time = f"{number(result.seconds)} s in total, on {result.device}"
    throughput = f"{number(result.examples_per_second)} images per second"
    if result.merged is not None:
        return facts
    return [
        *facts,
        Fact("Training", f"{number(result.train_seconds)} s", total_time),
        Fact("Speed", f"{number(result.ms_per_step)} ms per step", throughput),
    ]


def _is_number(value: Any) -> bool:
    return isinstance(value, numbers.Real) and not isinstance(value, bool)


def _data_uri(plot: Plot) -> str:
    return "data:image/png;base64," + base64.b64encode(plot.png).decode()
