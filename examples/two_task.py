"""Two tasks, independent or dependent: separate trunks joined late, one trunk, or attention?

    python examples/two_task.py [--seeds 5] [--steps N] [--workdir runs/two_task]

On two data sets of handwritten digits, where two tasks go well together (which digit it is, and its
value) and where they compete (which two digits lie over each other), three ways to share features
are compared with each other and with separate networks:

- `independent`: a trunk per task, whose features are joined before the heads;
- `none`: one trunk for both tasks, hard sharing;
- `attention`: one trunk, after which each task's features attend to the other's.

One table and one picture say what came out, and sentences how sure that is. Each data set also has
a page of its own. What is finished is kept, so the same command goes on after an interruption.
"""

import argparse
import dataclasses
from pathlib import Path

from PIL import Image
from rich.table import Table

from mtljax import compilation
from mtljax.comparison.compare import compare
from mtljax.comparison.conclusions import conclusions
from mtljax.comparison.figures import plot_delta_m
from mtljax.comparison.outcome import Comparison
from mtljax.comparison.table import format_delta_m, result_columns
from mtljax.config import find_experiment
from mtljax.report.figures import figure_style
from mtljax.utils.terminal import console, print_line

DATA = ("digits", "multi_digits")
FUSIONS = ("independent", "none", "attention")


def table(found: list[Comparison]) -> Table:
    """Every way on every data set."""
    shown = Table(title="two tasks: means over seeds ± half of the 95 % interval, test split")
    for column in ("network", "task 1", "task 2", "Δm % ↑", "parameters"):
        shown.add_column(column, justify="left" if column == "network" else "right")
    for one in found:
        metrics = result_columns(one)[: len(one.metrics)]
        heads = [f"{column.header} {column.better}" for column in metrics]
        shown.add_row(one.experiment.name, *heads, style="bold")
        for row in one.rows:
            shown.add_row(
                "separate networks" if row.kind == "stl" else row.name.removeprefix("fusion "),
                *(column.text(row) for column in metrics),
                format_delta_m(one, row),
                f"{row.costs['parameters'].mean:,.0f}",
                end_section=row is one.rows[-1],
            )
    return shown


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--steps", type=int, help="instead of each experiment's own")
    parser.add_argument("--workdir", type=Path, default=Path("runs/two_task"))
    flags = parser.parse_args()
    compilation.use_compile_cache()
    found = []
    for name in DATA:
        experiment = find_experiment(name)
        if flags.steps is not None:
            experiment = dataclasses.replace(experiment, steps=flags.steps)
        print_line(f"{name}: separate networks, then {', '.join(FUSIONS)}")
        comparison, failures = compare(
            experiment, flags.workdir / name, fusions=FUSIONS, seeds=flags.seeds
        )
        if failures:
            raise SystemExit(f"{len(failures)} runs failed: {failures[0].reason}")
        found.append(comparison)

    console.print(table(found))
    for one in found:
        for sentence in conclusions(one):
            print_line(f"{one.experiment.name}: {sentence}")
    with figure_style():
        bars = [plot_delta_m(one, f"{one.experiment.name}: ") for one in found]
    images = [picture.image for picture in bars if picture is not None]
    size = sum(image.width for image in images), max(image.height for image in images)
    whole, left = Image.new("RGB", size, "white"), 0
    for image in images:
        whole.paste(image, (left, 0))
        left += image.width
    whole.save(flags.workdir / "two_task.png")
    print(f"picture: {flags.workdir / 'two_task.png'}; pages: {flags.workdir}/*/report.html")


if __name__ == "__main__":
    main()
