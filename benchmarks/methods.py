"""Table of all balancers on `scenes` beside single-task learning, with intervals over seeds.

    python benchmarks/methods.py --workdir runs/methods [--seeds 3] [--steps 400]

Trains the members of a comparison that are missing in the folder, and prints a Markdown table: the
change against single-task learning, the paired difference from equal weighting, and the p value of
that difference, alone and after Holm's correction for the differences in the table.
"""

import argparse
import dataclasses
import json
from pathlib import Path

import numpy as np

import mtljax
from mtljax.balancing import BALANCERS, required_arguments
from mtljax.comparison.conclusions import format_percent
from mtljax.comparison.outcome import Comparison
from mtljax.comparison.plan import plan
from mtljax.comparison.statistics import holm_correction

EXPERIMENT = "scenes"
LEFT_OUT = {
    "fixed": "weights have to be given",
    "hypervolume": "trains several networks together",
}
FIRST = "ew"


def stl_losses(experiment, seeds: int, workdir: Path) -> list[float]:
    """Last logged training loss of single-task learning of each task, averaged over seeds."""
    baselines = [m for m in plan(experiment, balancers=[FIRST]) if m.kind == "stl"]
    losses: dict[str, list[float]] = {task.name: [] for task in experiment.tasks}
    for method in baselines:
        for seed in range(experiment.seed, experiment.seed + seeds):
            folder = method.candidates[0].folder(workdir, seed)
            lines = map(json.loads, (folder / "metrics.jsonl").read_text().splitlines())
            last = [line["loss"] for line in lines if "loss" in line][-1]
            for task, loss in last.items():
                losses[task].append(loss)
    return [float(np.mean(values)) for values in losses.values()]


def members(losses: list[float]) -> list[str]:
    """Texts of all balancers, those that need arguments with them."""
    arguments = {"pivrg": f"stl_losses=({','.join(f'{loss:.4g}' for loss in losses)})"}
    names = [name for name in BALANCERS if name not in LEFT_OUT]
    missing = {name for name in names if required_arguments(name)} - set(arguments)
    if missing:
        raise ValueError(f"give arguments for {sorted(missing)}")
    return [f"{name}:{arguments[name]}" if name in arguments else name for name in names]


def table(comparison: Comparison) -> str:
    """Markdown table, the best method first."""
    rows = [row for row in comparison.rows_of("method") if row.has_results]
    rows.sort(key=lambda row: -row.improvement.mean)
    tests = [comparison.test(row.name, FIRST) for row in rows]
    adjusted = holm_correction(np.array([test.p if test else np.nan for test in tests]))
    lines = ["| balancer | Δm | minus `ew` | p | Holm |", "|---|---:|---:|---:|---:|"]
    for row, test, p in zip(rows, tests, adjusted, strict=True):
        name = row.name.partition(":")[0]
        cells = [f"`{name}`", format_percent(row.improvement), "", "", ""]
        if test is not None:
            difference = format_percent(test.difference).removesuffix(" %")
            cells[2:] = difference, _p(test.p), _p(float(p))
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _p(value: float) -> str:
    return f"{value:.3f}" if value >= 1e-3 else "< 0.001"


def main() -> None:
    """Trains what is missing and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--workdir", type=Path, default=Path("runs/methods"))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=400)
    arguments = parser.parse_args()
    experiment = dataclasses.replace(
        mtljax.find_experiment(EXPERIMENT), steps=arguments.steps, eval_every=arguments.steps // 2
    )
    seeds, workdir = arguments.seeds, arguments.workdir
    mtljax.compare(experiment, workdir, seeds=seeds, balancers=[FIRST])
    balancers = members(stl_losses(experiment, seeds, workdir))
    comparison, failures = mtljax.compare(experiment, workdir, seeds=seeds, balancers=balancers)
    print(table(comparison))
    for failure in failures:
        print(f"{failure.member}: {failure.reason}")


if __name__ == "__main__":
    main()
