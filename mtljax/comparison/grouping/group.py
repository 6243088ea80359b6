"""Task grouping: measures affinity while all tasks train, and recommends a partition."""

import dataclasses
import itertools
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float
from rich.table import Table

from mtljax.comparison.grouping.affinity import make_affinity, measure_affinity
from mtljax.comparison.grouping.search import Grouping, recommend
from mtljax.comparison.workdir import locked_workdir
from mtljax.config import Experiment
from mtljax.training.programs import Programs
from mtljax.training.setup import set_up
from mtljax.utils.files import write_json
from mtljax.utils.fitting_table import FittingTable
from mtljax.utils.terminal import announcements, console, print_line
from mtljax.utils.text import count, joined

FOLDER = "affinity"
"""Folder of the measurements."""


def group(
    experiment: Experiment,
    workdir: Path,
    *,
    seeds: int = 3,
    groups: int | None = None,
    devices: int | None = None,
    quiet: bool = False,
) -> Grouping:
    """Measures task affinity with several seeds and recommends which tasks to train together.

    Args:
      experiment: Experiment that trains all tasks.
      workdir: Folder for recommendation, page and measurements; finished seeds are not repeated.
      seeds: Number of consecutive seeds, from the experiment's.
      groups: Maximum number of groups, one network each; None: no limit.
      devices: Number of devices to use; None: all.
      quiet: Print nothing.

    Raises:
      ValueError: Invalid arguments, or an experiment with one task.
    """
    if len(experiment.tasks) < 2:
        raise ValueError("group needs an experiment with at least two tasks")
    if seeds < 1 or (groups is not None and groups < 1):
        raise ValueError("--seeds and --groups must be >= 1")
    with locked_workdir(workdir, FOLDER, "grouping"):
        with announcements(not quiet):
            setup, measured = set_up(experiment, devices=devices), []
        programs = Programs(setup)
        measure = programs.compile_measure(make_affinity(setup.probe, experiment.learning_rate))
        if not quiet:
            for line in setup.initial.report:
                print_line(line)
        for number in range(experiment.seed, experiment.seed + seeds):
            member = dataclasses.replace(experiment, seed=number)
            measured.append(measure_affinity(member, workdir / FOLDER, programs, measure))
            if not quiet:
                print_line(
                    f"[{len(measured)}/{seeds}] seed {number}: {len(measured[-1])} measurements"
                )
        grouping = recommend(measured, groups)
        write(experiment, grouping, workdir)
    if not quiet:
        names = [task.name for task in experiment.tasks]
        console.print(affinity_table(names, grouping.affinity, console.width))
        for sentence in conclusions(names, grouping):
            print_line(sentence)
    return grouping


def affinity_table(names: Sequence[str], affinity: Float[np.ndarray, "T T"], width: int) -> Table:
    """Table for the terminal: decrease (+) or increase (-) of a loss by a step on another task.

    The full matrix, or the extremes of each task if the matrix is wider than `width` characters.
    """
    table = Table("step on", title="affinity, % of the other loss", title_justify="left")
    for name in names:
        table.add_column(f"helps {name}", justify="right")
    for name, row in zip(names, affinity, strict=True):
        table.add_row(name, *(f"{100 * value:+.3g}" for value in row))
    unlimited = console.options.update(max_width=sys.maxsize)
    if console.measure(table, options=unlimited).maximum <= width:
        return table

    title = "affinity, % of the loss (the page has the full matrix)"
    columns = ("loss of", "most helpful", "least helpful")
    table = FittingTable(title=title, keep=columns)
    for header in columns:
        table.add_texts(header)
    for j, name in enumerate(names):
        order = sorted(set(range(len(names))) - {j}, key=lambda i: affinity[i, j])
        cells = [f"{names[i]}  {100 * affinity[i, j]:+.2g}" for i in (order[-1], order[0])]
        table.add_row(name, *cells)
    return table


def conclusions(names: Sequence[str], grouping: Grouping) -> list[str]:
    """Returns the recommendation and its confidence as sentences."""
    groups = [joined([names[i] for i in part]) for part in grouping.groups if len(part) > 1]
    single = [names[part[0]] for part in grouping.groups if len(part) == 1]
    sentences = []
    if groups:
        which = "Train together" if single or len(groups) > 1 else "Train all tasks together"
        sentences.append(f"{which}: {'; '.join(groups)}.")
    if single:
        separate = f"Train separately: {joined(single)}; grouping does not improve the score."
        sentences.append(separate)
    pairs = list(itertools.permutations(range(len(names)), 2))
    highest, lowest = (
        f"a step on {names[i]} changes the loss of {names[j]} by "
        f"{-100 * grouping.affinity[i, j]:+.2g} %"
        for i, j in (pick(pairs, key=grouping.affinity.__getitem__) for pick in (max, min))
    )
    sentences.append(f"Highest affinity: {highest}; lowest: {lowest}.")
    support, seeds = grouping.support, len(grouping.measurements)
    confidence = "high" if support >= 0.95 else "moderate" if support >= 0.7 else "low"
    method = "exact search" if grouping.is_exact else "local search"
    sentences.append(
        f"Confidence: {confidence}. {100 * support:.0f} % of bootstrap resamples of "
        f"{sum(grouping.measurements)} measurements from {count(seeds, 'seed')} give the same "
        f"groups ({method}). Affinity predicts the effect of one step; run compare to measure the "
        "effect of training together."
    )
    return sentences


def write(experiment: Experiment, grouping: Grouping, workdir: Path) -> None:
    """Writes `group.json` and the page."""
    from mtljax.comparison.grouping.page import write_page  # imports matplotlib

    names = [task.name for task in experiment.tasks]
    content = {
        "tasks": names,
        "groups": [[names[i] for i in part] for part in grouping.groups],
        "affinity": grouping.affinity.tolist(),
        "score": grouping.score,
        "score_together": grouping.joint_score,
        "support": grouping.support,
        "measurements": list(grouping.measurements),
    }
    write_json(workdir / "group.json", content)
    write_page(workdir, experiment, grouping, conclusions(names, grouping))
