"""The pictures and the page of one run."""

import functools
import math
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from mtljax.evaluation.predictions import Predictions
from mtljax.report import curves
from mtljax.report.figures import Picture, look, picture
from mtljax.report.image_grid import PARTS, Grid, make_tiles, make_triples, worst_first
from mtljax.report.overview import overview
from mtljax.report.page import TaskPart, render
from mtljax.report.sheets import Sheet, make_sheet
from mtljax.report.summary import balancer_name, main_results
from mtljax.tasks import Task
from mtljax.utils.text import count, joined

_WIDTH, _WIDE = 4.8, 7.2
_FEW, _DETAILED = 4, 12
_WORST, _WORST_COLUMNS = 20, 5
_WORST_TRIPLES = 8
_RANDOM, _RANDOM_COLUMNS = 16, 4
_RANDOM_TASKS = 3
_SHEET_COLUMNS = 6


def write_report(
    workdir: Path,
    *,
    title: str,
    config: dict,
    tasks: Sequence[Task],
    history: list[dict],
    result: dict,
    test: Predictions,
) -> None:
    """Writes `workdir/plots/*.png` and `workdir/report.html`, which holds them all.

    Args:
      workdir: An existing folder. Files of an earlier report are replaced.
      title: What to call the run.
      config: The experiment, as nested JSON.
      tasks: In the experiment's order.
      history: The lines of `metrics.jsonl`.
      result: What `result.json` says.
      test: Of the test split, by the chosen parameters.
    """
    with look():
        shown = _telling(tasks, result)
        parts = _tasks(shown, history, result, test)
        ranking = _ranking(tasks, result)
        training = _training(tasks, history, config, result)
        examples = _random(tasks, test)
        pictures = [*ranking, *training, *(p for part in parts for p in part.pictures)]
        if examples is not None:
            pictures.append(examples)
        whole = _overview(title, tasks, parts, training, examples, config, result)
    page = render(
        title=title,
        config=config,
        tasks=tasks,
        parts=parts,
        ranking=ranking,
        result=result,
        test=test,
        training=training,
        weights_in_words=curves.weights_in_words(tasks, history, balancer_name(config)),
        examples=examples,
    )
    plots = workdir / "plots"
    plots.mkdir(exist_ok=True)
    for made in (*pictures, whole):
        (plots / f"{made.name}.png").write_bytes(made.png)
    (workdir / "report.html").write_text(page, encoding="utf-8")


def _telling(tasks: Sequence[Task], result: dict) -> list[Task]:
    """The tasks to show one by one: all, or of many those that came out worst on the test split."""
    if len(tasks) <= _DETAILED:
        return list(tasks)

    def badness(task: Task) -> float:
        value = result["test"].get(task.name, {}).get(task.main_metric)
        if value is None or math.isnan(value):
            return -math.inf
        return -value if task.higher_is_better else value

    same = len({task.main_metric for task in tasks}) == 1
    chosen = sorted(tasks, key=badness, reverse=True) if same else list(tasks)
    return chosen[:_DETAILED]


def _ranking(tasks: Sequence[Task], result: dict) -> list[Picture]:
    """Main metrics of many tasks beside each other, a picture per kind of metric."""
    found = []
    for metric in dict.fromkeys(task.main_metric for task in tasks):
        group = [task for task in tasks if task.main_metric == metric]
        if len(group) > _FEW:
            drawn = picture(
                f"ranking_{metric}",
                functools.partial(curves.draw_ranking, tasks=group, result=result),
                height=0.7 + 0.17 * len(group),
                margins=None,
            )
            found += [drawn] if drawn is not None else []
    return found


def _tasks(
    tasks: Sequence[Task], history: list[dict], result: dict, test: Predictions
) -> list[TaskPart]:
    """Of each task: its losses, its predictions, its worst images."""
    parts = []
    best = result.get("best_step")
    for task, stem in zip(tasks, file_stems([task.name for task in tasks]), strict=True):

        def draw_test(axis, task=task):
            index, outputs, labels = test.of(task)
            return task.draw(axis, outputs, labels) if len(index) else None

        def draw_loss(axis, task=task):
            return curves.draw_loss(axis, task, history, best)

        loss = picture(f"loss_{stem}", draw_loss)
        drawn = picture(f"test_{stem}", draw_test, height=4.1, margins=None)
        parts.append(TaskPart(task, loss, drawn, _worst(task, stem, test)))
    return parts


def _training(
    tasks: Sequence[Task], history: list[dict], config: dict, result: dict
) -> list[Picture]:
    """Weights, or a validation metric where they tell nothing; gradients, curvature, throughput."""
    balancer, best = balancer_name(config), result.get("best_step")
    weights = picture(
        "weights",
        lambda a: curves.draw_weights(a, tasks, history, balancer),
        margins=curves.NAMED_MARGINS,
    )
    first = weights or picture(
        "validation_metric", lambda a: curves.draw_metric(a, tasks[0], history, best)
    )
    count_pairs = min(20, len(tasks) * (len(tasks) - 1) // 2)
    agreement = picture(
        "agreement",
        lambda a: curves.draw_agreement(a, tasks, history),
        height=max(2.2, 0.9 + 0.2 * count_pairs),
        margins=None,
    )
    norm = picture("gradient_norm", lambda a: curves.draw_gradient_norm(a, history))
    curvature = picture("curvature", lambda a: curves.draw_curvature(a, history))
    speed = picture("throughput", lambda a: curves.draw_speed(a, history))
    return [p for p in (first, norm, speed, curvature, agreement) if p is not None]


def _overview(
    title: str,
    tasks: Sequence[Task],
    parts: Sequence[TaskPart],
    training: Sequence[Picture],
    examples: Picture | None,
    config: dict,
    result: dict,
) -> Picture:
    """The most telling pictures of the first two tasks in one."""
    losses = [part.loss for part in parts[:2] if part.loss is not None]
    above = [*losses, *training][:3]
    tests = [part.test for part in parts if part.test is not None][:2]
    worst = [part.worst for part in parts if part.worst is not None][: 3 - len(tests)]
    below = [*tests, *worst, *([examples] if examples is not None else [])][:3]
    facts = [
        f"balancer {balancer_name(config)}",
        f"{result['steps']:,} steps",
        f"{result['parameters']['total']:,} parameters",
        f"{result['seconds']:.1f} s on {result['device']}",
    ]
    heading = f"{title}: {main_results(tasks, result['test'])}"
    return overview(heading, "   ·   ".join(facts), [*above, *below])


def _worst(task: Task, stem: str, test: Predictions) -> Picture | None:
    """The test images with the largest errors of one task."""
    index = worst_first(task, test, _WORST)
    if not len(index):
        return None
    triples = make_triples(task, test, index[:_WORST_TRIPLES])
    if triples is not None:
        which = count(len(triples), "test image")
        title = f"the {which} with the largest error, each with its truth and its prediction"
        grid = Grid(triples, 2, _WIDTH, headings=PARTS, legend=task.legend)
    else:
        which = count(len(index), "test image")
        title = f"the {which} with the largest error, worst first (true → predicted)"
        grid = Grid(make_tiles([task], test, index, named=False), _WORST_COLUMNS, _WIDTH)
    return _grid(f"worst_{stem}", f"{task.name}: {title}", grid)


def _random(tasks: Sequence[Task], test: Predictions) -> Picture | None:
    """Test images picked by chance, the same in every run of a data set."""
    index = np.random.default_rng(0).permutation(len(test.images))[:_RANDOM]
    if not len(index):
        return None
    name = "random_test_images"
    sheet = make_sheet(tasks, test, index[:_SHEET_COLUMNS], _WIDE)
    if sheet is not None:
        which = count(len(sheet.captions), "test image")
        return _grid(name, f"{which} picked by chance, the truth above the prediction", sheet)
    shown = tasks[:_RANDOM_TASKS]
    names = joined([task.name for task in shown])
    of = names if len(shown) == len(tasks) else f"{names} (of {len(tasks)} tasks)"
    title = f"{count(len(index), 'test image')} picked by chance: true → predicted {of}"
    tiles = make_tiles(shown, test, index, named=len(tasks) > 1)
    return _grid(name, title, Grid(tiles, _RANDOM_COLUMNS, _WIDTH))


def _grid(name: str, title: str, grid: Grid | Sheet) -> Picture | None:
    def draw(axis):
        grid.draw(axis)
        return title

    return picture(
        name, draw, width=grid.width + 0.1, height=grid.height, margins=(0.06, 0, 0.04, 0)
    )


def file_stems(names: Sequence[str]) -> list[str]:
    """Names made fit for files, and different from each other on any file system."""
    stems: list[str] = []
    for name in names:
        base = re.sub(r"[^A-Za-z0-9_-]+", "_", name)[:60]
        stem, n = base, 2
        while stem.lower() in map(str.lower, stems):
            stem, n = f"{base}_{n}", n + 1
        stems.append(stem)
    return stems
