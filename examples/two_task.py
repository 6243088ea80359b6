"""Comparison of feature sharing between two tasks: separate trunks, one trunk, or attention.

    python examples/two_task.py [--seeds 5] [--steps N] [--workdir runs/two_task]

Two data sets of handwritten digits: one with related tasks (class of the digit and its value), one
with competing tasks (the classes of two overlapping digits). Three fusions are compared with
single-task baselines:

- `independent`: one trunk per task, whose features are concatenated before the heads;
- `none`: one trunk for both tasks (hard parameter sharing);
- `attention`: one trunk, then cross-task attention between the features.

The result is one table, one figure and a list of conclusions; each data set also has a report.
Finished runs are reused, so the same command continues after an interruption.
"""

import argparse
import dataclasses
from collections.abc import Sequence
from pathlib import Path

from PIL import Image
from rich.table import Table

import mtljax
from mtljax.comparison.conclusions import conclusions
from mtljax.comparison.figures import plot_delta_m
from mtljax.comparison.outcome import Comparison
from mtljax.comparison.table import format_delta_m, result_columns
from mtljax.report.figures import figure_style
from mtljax.utils.terminal import console, print_line

EXPERIMENTS = ("digits", "multi_digits")
FUSIONS = ("independent", "none", "attention")


def table(comparisons: Sequence[Comparison]) -> Table:
    """Table of the baselines and fusions, for each data set."""
    result = Table(title="two tasks: mean over seeds ± half of the 95 % interval, test split")
    for header in ("network", "task 1", "task 2", "Δm % ↑", "parameters"):
        result.add_column(header, justify="left" if header == "network" else "right")
    for comparison in comparisons:
        metrics = result_columns(comparison)[: len(comparison.metrics)]
        headers = [f"{column.header} {column.better}" for column in metrics]
        result.add_row(comparison.experiment.name, *headers, style="bold")
        for row in comparison.rows:
            result.add_row(
                "single-task" if row.kind == "stl" else row.name.removeprefix("fusion "),
                *(column.text(row) for column in metrics),
                format_delta_m(comparison, row),
                f"{row.costs['parameters'].mean:,.0f}",
                end_section=row is comparison.rows[-1],
            )
    return result


def figure(comparisons: Sequence[Comparison]) -> Image.Image:
    """Bar charts of delta_m, side by side."""
    with figure_style():
        plots = [plot_delta_m(each, f"{each.experiment.name}: ") for each in comparisons]
    images = [plot.image for plot in plots if plot is not None]
    size = sum(image.width for image in images), max(image.height for image in images)
    result, left = Image.new("RGB", size, "white"), 0
    for image in images:
        result.paste(image, (left, 0))
        left += image.width
    return result


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--steps", type=int, help="default: the steps of each experiment")
    parser.add_argument("--workdir", type=Path, default=Path("runs/two_task"))
    flags = parser.parse_args()
    mtljax.use_compile_cache()
    comparisons = []
    for name in EXPERIMENTS:
        experiment = mtljax.find_experiment(name)
        if flags.steps is not None:
            experiment = dataclasses.replace(experiment, steps=flags.steps)
        print_line(f"{name}: single-task baselines, then {', '.join(FUSIONS)}")
        comparison, failures = mtljax.compare(
            experiment, flags.workdir / name, fusions=FUSIONS, seeds=flags.seeds
        )
        if failures:
            raise SystemExit(f"{len(failures)} runs failed: {failures[0].reason}")
        comparisons.append(comparison)

    console.print(table(comparisons))
    for comparison in comparisons:
        for sentence in conclusions(comparison):
            print_line(f"{comparison.experiment.name}: {sentence}")
    figure(comparisons).save(flags.workdir / "two_task.png")
    print(f"figure: {flags.workdir / 'two_task.png'}; reports: {flags.workdir}/*/report.html")


if __name__ == "__main__":
    main()
