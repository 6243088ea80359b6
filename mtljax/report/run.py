"""Report of a run: figures and page."""

import functools
import math
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes

from mtljax.config import Experiment
from mtljax.evaluation.predictions import Predictions
from mtljax.report import curves, example_images, page, summary
from mtljax.report.figures import Plot, existing, figure_style, make_plot, write_plots
from mtljax.report.history import History
from mtljax.report.image_grid import GridCell, ImageGrid
from mtljax.report.page import TaskSection
from mtljax.runs.result import RunResult
from mtljax.tasks import Task
from mtljax.utils.files import write_text
from mtljax.utils.text import count, joined

_WIDTH, _WIDE = 4.9, 7.3
_FEW_RANKED, _FEW_OPEN, _MOST_SECTIONS = 4, 6, 12
_WORST, _WORST_COLUMNS, _WORST_TRIPLES = 20, 5, 8
_RANDOM, _RANDOM_COLUMNS, _RANDOM_TASKS, _LABEL_COLUMNS = 16, 4, 3, 6
_MOST_PAIRS = 20


def write_report(
    workdir: Path, *, experiment: Experiment, history: History, result: RunResult, test: Predictions
) -> None:
    """Writes the self-contained page `workdir/report.html`, and `workdir/plots/*.png`.

    Args:
      workdir: An existing folder; files of an earlier report are replaced.
      history: Records of `metrics.jsonl`.
      test: Predictions for the test split with the selected parameters.
    """
    tasks = experiment.tasks
    with figure_style():
        sections = _task_sections(_detailed_tasks(tasks, result), history, result, test)
        ranking = _ranking_plots(tasks, result)
        training = _training_plots(experiment, history, result)
        examples = _random_examples(tasks, test)
        overview = _overview(experiment, result, sections, training, examples)
    labeled = test.labeled
    html = page.load_template("run.html.jinja").render(
        title=experiment.name,
        headline=summary.headline(tasks, result, test.total),
        sample=summary.sample_note(len(test.images), test.total),
        remarks=summary.remarks(tasks, result, labeled),
        facts=page.key_numbers(result),
        tasks=tasks,
        sections=sections,
        ranking=ranking,
        few_tasks=len(tasks) <= _FEW_OPEN,
        rows={task.name: page.metric_rows(task, result) for task in tasks},
        summaries={t.name: summary.task_summary(t, result, labeled[t.name]) for t in tasks},
        training=training,
        captions=page.CAPTIONS,
        constant_weights=curves.describe_weights(tasks, history, experiment.balancer),
        examples=examples,
        settings=page.settings_text(experiment),
        environment=result.environment,
    )
    plots = [*ranking, *training, *(plot for section in sections for plot in section.plots)]
    write_plots(workdir, [*plots, *existing(examples), overview])
    write_text(workdir / "report.html", html)


def _detailed_tasks(tasks: Sequence[Task], result: RunResult) -> list[Task]:
    """Tasks with a section: all of a few; else the worst on test, if their metric is the same."""
    if len(tasks) <= _MOST_SECTIONS:
        return list(tasks)

    def badness(task: Task) -> float:
        value = result.test.get(task.name, {}).get(task.main_metric)
        if value is None or math.isnan(value):
            return -math.inf
        return -value if task.higher_is_better else value

    comparable = len({task.main_metric for task in tasks}) == 1
    ordered = sorted(tasks, key=badness, reverse=True) if comparable else list(tasks)
    return ordered[:_MOST_SECTIONS]


def _ranking_plots(tasks: Sequence[Task], result: RunResult) -> list[Plot]:
    """Main metrics of many tasks, a figure per kind of metric."""
    plots = []
    for metric in dict.fromkeys(task.main_metric for task in tasks):
        group = [task for task in tasks if task.main_metric == metric]
        if len(group) > _FEW_RANKED:
            draw = functools.partial(curves.draw_ranking, tasks=group, result=result)
            height = 0.7 + 0.17 * len(group)
            plots.append(make_plot(f"ranking_{metric}", draw, height=height, margins=None))
    return existing(*plots)


def _task_sections(
    tasks: Sequence[Task], history: History, result: RunResult, test: Predictions
) -> list[TaskSection]:
    sections, best = [], result.best_step
    for task, stem in zip(tasks, file_stems([task.name for task in tasks]), strict=True):

        def draw_test(axis: Axes, task: Task = task) -> str | None:
            index, outputs, labels = test.of(task)
            title = task.draw_metrics(axis, result.test.get(task.name, {}))
            if title is not None or not len(index):
                return title
            return task.draw(axis, outputs, labels)

        draw_loss = functools.partial(curves.draw_loss, task=task, history=history, best_step=best)
        loss = make_plot(f"loss_{stem}", draw_loss)
        predictions = make_plot(f"test_{stem}", draw_test, height=4.1, margins=None)
        worst = _worst_examples(task, stem, test)
        confused = page.confused_pairs(task, result.test.get(task.name, {}))
        sections.append(TaskSection(task, loss, predictions, worst, confused))
    return sections


def _training_plots(experiment: Experiment, history: History, result: RunResult) -> list[Plot]:
    """Weights, or a validation metric if they are constant; gradients, curvature, throughput."""
    tasks = experiment.tasks
    draw_weights = lambda axis: curves.draw_weights(axis, tasks, history, experiment.balancer)
    draw_metric = lambda axis: curves.draw_metric(axis, tasks[0], history, result.best_step)
    draw_cosines = lambda axis: curves.draw_cosines(axis, tasks, history)
    weights = make_plot("weights", draw_weights, margins=curves.LABELED_MARGINS)
    pairs = min(_MOST_PAIRS, len(tasks) * (len(tasks) - 1) // 2)
    height = max(2.2, 0.9 + 0.2 * pairs)
    return existing(
        weights or make_plot("validation_metric", draw_metric),
        make_plot("gradient_norm", lambda axis: curves.draw_gradient_norm(axis, history)),
        make_plot("throughput", lambda axis: curves.draw_throughput(axis, history)),
        make_plot("curvature", lambda axis: curves.draw_curvature(axis, history)),
        make_plot("agreement", draw_cosines, height=height, margins=None),
    )


def _overview(
    experiment: Experiment,
    result: RunResult,
    sections: Sequence[TaskSection],
    training: Sequence[Plot],
    examples: Plot | None,
) -> Plot:
    """The main figures of the first two tasks in one image, for a README or a slide."""
    losses = existing(*(section.loss for section in sections[:2]))
    tests = existing(*(section.test for section in sections))[:2]
    worst = existing(*(section.worst for section in sections))[: 3 - len(tests)]
    plots = [*losses, *training][:3] + [*tests, *worst, *existing(examples)][:3]
    facts = [f"balancer {experiment.balancer}", f"{result.last_step:,} steps"]
    if result.merged is not None:
        facts = [result.selection]
    if result.parameters is not None:
        facts.append(f"{result.parameters.total:,} parameters")
    if result.seconds is not None:
        facts.append(f"{result.seconds:.1f} s on {result.device}")
    title, subtitle = summary.main_results(experiment.tasks, result.test), "   ·   ".join(facts)
    cells = [GridCell(np.asarray(plot.image)) for plot in plots]
    grid = ImageGrid(cells=cells, columns=3, width=14, dpi=100, title_size=16, subtitle=subtitle)
    return grid.render("overview", f"{experiment.name}: {title}")


def _worst_examples(task: Task, stem: str, test: Predictions) -> Plot | None:
    """Test images with the largest errors of a task."""
    index = example_images.worst_first(task, test, _WORST)
    if not len(index):
        return None
    triples = example_images.triple_cells(task, test, index[:_WORST_TRIPLES])
    if triples is not None:
        images, details = len(triples), "with label and prediction"
        parts, legend = example_images.PARTS, task.legend
        grid = ImageGrid(cells=triples, columns=2, width=_WIDTH, part_labels=parts, legend=legend)
    else:
        images, details = len(index), "worst first (label → prediction)"
        cells = example_images.captioned_cells(
            [task], test, index, with_names=False, with_files=True
        )
        grid = ImageGrid(cells=cells, columns=_WORST_COLUMNS, width=_WIDTH)
    which = count(images, "test image")
    if len(test.images) < test.total:
        details += f", of a sample of {len(test.images):,}"
    return grid.render(f"worst_{stem}", f"{task.name}: {which} with the largest errors, {details}")


def _random_examples(tasks: Sequence[Task], test: Predictions) -> Plot | None:
    """Random test images, the same in every run of a data set."""
    index = np.random.default_rng(0).permutation(len(test.images))[:_RANDOM]
    if not len(index):
        return None
    grid = example_images.label_grid(tasks, test, index[:_LABEL_COLUMNS], _WIDE)
    if grid is not None:
        title = f"{count(grid.columns, 'random test image')}: label above prediction"
    else:
        shown = tasks[:_RANDOM_TASKS]
        names = joined([task.name for task in shown])
        names += f" (of {len(tasks)} tasks)" * (len(shown) < len(tasks))
        title = f"{count(len(index), 'random test image')}: label → prediction of {names}"
        cells = example_images.captioned_cells(shown, test, index, with_names=len(tasks) > 1)
        grid = ImageGrid(cells=cells, columns=_RANDOM_COLUMNS, width=_WIDE)
    return grid.render("random_test_images", title)


def file_stems(names: Sequence[str]) -> list[str]:
    """Returns file names for task names, distinct on case-insensitive file systems too."""
    stems: list[str] = []
    for name in names:
        base = re.sub(r"[^A-Za-z0-9_-]+", "_", name)[:60]
        stem, n = base, 2
        while stem.lower() in map(str.lower, stems):
            stem, n = f"{base}_{n}", n + 1
        stems.append(stem)
    return stems
