"""How much faster ten seeds are in one program than in ten runs of the train loop.

    python benchmarks/seeds.py [--seeds 10] [--steps 600] [--rounds 3] [--activation tanh]

The network is a multilayer perceptron on the digits, trained by the whole loop: data, evaluation,
checkpoints, result. In each round the seeds are trained

- apart: `mtljax.training.loop.train` once for each, as ten commands would, but without their
  imports; - in turn: one after the other with the data and the compiled programs shared;
- together: side by side in one program.

No report is drawn in any of them. What was compiled before is in the cache for all. Then every
number of every seed's test split is compared between the ways. Momentum, a squared loss and tanh
are used: Adam turns a gradient that is 0 but for rounding into a whole step, and the gradient of an
absolute loss or of a ReLU jumps at 0, which makes much of the last bit, however seeds are run: of
ten seeds with `--activation relu`, one differs by 1e-3. The last line shows what rounding alone
does: seeds in turn, thrice, each time from weights that are changed in their last bit.
"""

import argparse
import dataclasses
import statistics
import tempfile
import time
from pathlib import Path
from unittest import mock

import jax
import numpy as np

import mtljax.report.run
from mtljax import compilation, parallel
from mtljax.config import find_experiment
from mtljax.evaluation.evaluator import scalar_metrics
from mtljax.training.loop import train, train_group
from mtljax.training.programs import Programs
from mtljax.training.setup import set_up


def experiment_of(steps: int, activation: str = "tanh"):
    base = find_experiment("digits")
    return dataclasses.replace(
        base,
        data=dataclasses.replace(base.data, augment="none"),
        tasks=(base.tasks[0], dataclasses.replace(base.tasks[1], kind="l2")),
        trunk=f"mlp:widths=(64,),activation={activation}",
        optimizer="momentum",
        learning_rate=0.02,
        steps=steps,
    )


def apart(runs, folder: Path) -> list[dict]:
    keep, mtljax.report.run.write_report = mtljax.report.run.write_report, lambda *_, **__: None
    try:
        return [train(run, folder / str(run.seed), quiet=True) for run in runs]
    finally:
        mtljax.report.run.write_report = keep


def in_turn(runs, folder: Path) -> list[dict]:
    programs = Programs(set_up(runs[0]))
    settings = {"quiet": True, "page": False}
    return [train_group([r], [folder / str(r.seed)], programs, **settings)[0] for r in runs]


def together(runs, folder: Path) -> list[dict]:
    folders = [folder / str(run.seed) for run in runs]
    return train_group(runs, folders, Programs(set_up(runs[0])), quiet=True, report=False)


def nudged(runs, folder: Path, draw: int) -> list[dict]:
    """In turn, from weights that are changed in their last bit."""
    create = Programs.create

    def changed(programs, seed):
        state, random = create(programs, seed), np.random.default_rng([draw, seed])
        nudge = lambda x: x * random.choice(np.float32([1 - 2**-23, 1, 1 + 2**-23]), x.shape)
        return state.replace(params=jax.tree.map(nudge, state.params))

    with mock.patch.object(Programs, "create", changed):
        return in_turn(runs, folder)


def differences(ours: list[dict], theirs: list[dict]) -> list[float]:
    """Of each seed the largest relative difference of a test metric."""
    return [
        max(
            abs(value - b["test"][task][name]) / max(abs(value), 1e-3)
            for task in a["test"]
            for name, value in scalar_metrics(a["test"][task]).items()
        )
        for a, b in zip(ours, theirs, strict=True)
    ]


def told(differences) -> str:
    """The furthest, and which seeds are not equal to 1e-5."""
    beyond = ", ".join(map(str, np.flatnonzero(np.array(differences) > 1e-5))) or "none"
    return f"furthest {max(differences):.1e}, seeds beyond 1e-5: {beyond}"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--activation", default="tanh", choices=["relu", "gelu", "tanh"])
    flags = parser.parse_args()
    compilation.use_compile_cache()
    base = experiment_of(flags.steps, flags.activation)
    runs = [dataclasses.replace(base, seed=seed) for seed in range(flags.seeds)]
    ways = {"apart": apart, "in turn": in_turn, "together": together}
    with tempfile.TemporaryDirectory() as folder:  # everything is compiled before it is timed
        for name, way in ways.items():
            way(runs if name == "together" else runs[:1], Path(folder) / name)
    print(f"jax {jax.__version__}, {parallel.describe()}, {flags.seeds} seeds, {flags.steps} steps")
    found: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(flags.rounds):
        results = {}
        for name, way in ways.items():
            with tempfile.TemporaryDirectory() as folder:
                began = time.perf_counter()
                results[name] = way(runs, Path(folder))
                found[name].append(time.perf_counter() - began)
    for name, seconds in found.items():
        apart_by = differences(results["apart"], results[name])
        ratios = [s / a for s, a in zip(seconds, found["apart"], strict=True)]
        print(
            f"  {name:9}{statistics.median(seconds):8.2f} s   of apart: "
            f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})   "
            + told(apart_by)
        )
    by_rounding = []
    for draw in range(3):
        with tempfile.TemporaryDirectory() as folder:
            by_rounding.append(differences(results["apart"], nudged(runs, Path(folder), draw)))
    print(f"  rounding alone: {told(np.max(by_rounding, axis=0))}")


if __name__ == "__main__":
    main()
