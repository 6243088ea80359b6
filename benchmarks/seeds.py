"""Speedup of training ten seeds in one program, compared with ten runs of the train loop.

    python benchmarks/seeds.py [--seeds 10] [--steps 600] [--rounds 3] [--activation tanh]

The network is a multilayer perceptron on the digits, trained by the complete loop: data,
evaluation, checkpoints, result; no reports. In each round the seeds are trained

- separate: one after the other with separate programs, as ten commands would without their imports;
- sequential: one after the other with shared data and compiled programs;
- together: side by side in one program.

All modes use the compile cache. Then the test metrics of each seed are compared between the modes.
The loss is squared, with momentum and tanh: Adam amplifies a gradient that is zero up to rounding
into a full step, and the gradients of an absolute loss and of ReLU are discontinuous at 0, so
rounding errors grow in any mode: with `--activation relu`, one of ten seeds differs by 1e-3. The
last line shows the effect of rounding: sequential runs, three times, with initial weights perturbed
in their last bit.
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

from mtljax import Experiment, RunResult, find_experiment, parallel, use_compile_cache
from mtljax.evaluation.evaluator import scalar_metrics
from mtljax.training.loop import train_group
from mtljax.training.programs import Programs
from mtljax.training.setup import set_up


def experiment_of(steps: int, activation: str = "tanh") -> Experiment:
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


def separate(runs: list[Experiment], folder: Path) -> list[RunResult]:
    """Trains the runs one after the other, each with its own programs."""
    return [result for run in runs for result in together([run], folder)]


def sequential(runs: list[Experiment], folder: Path) -> list[RunResult]:
    """Trains the runs one after the other with shared programs."""
    programs = Programs(set_up(runs[0]))
    return [result for run in runs for result in together([run], folder, programs)]


def together(
    runs: list[Experiment], folder: Path, programs: Programs | None = None
) -> list[RunResult]:
    """Trains the runs side by side in one program."""
    folders = [folder / str(run.seed) for run in runs]
    programs = programs or Programs(set_up(runs[0]))
    return train_group(runs, folders, programs, quiet=True, report=False)


def perturbed(runs: list[Experiment], folder: Path, draw: int) -> list[RunResult]:
    """Sequential runs with initial weights perturbed in their last bit."""
    create = Programs.create

    def create_perturbed(programs, seed):
        state, random = create(programs, seed), np.random.default_rng([draw, seed])
        perturb = lambda x: x * random.choice(np.float32([1 - 2**-23, 1, 1 + 2**-23]), x.shape)
        return state.replace(params=jax.tree.map(perturb, state.params))

    with mock.patch.object(Programs, "create", create_perturbed):
        return sequential(runs, folder)


def differences(results: list[RunResult], reference: list[RunResult]) -> list[float]:
    """Largest relative difference of a test metric, per seed."""
    return [
        max(
            abs(value - a.test[task][name]) / max(abs(value), 1e-3)
            for task in b.test
            for name, value in scalar_metrics(b.test[task]).items()
        )
        for a, b in zip(results, reference, strict=True)
    ]


def summary(differences) -> str:
    """Largest difference, and the seeds that differ by more than 1e-5."""
    seeds = ", ".join(map(str, np.flatnonzero(np.array(differences) > 1e-5))) or "none"
    return f"largest difference {max(differences):.1e}, seeds above 1e-5: {seeds}"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--activation", default="tanh", choices=["relu", "gelu", "tanh"])
    flags = parser.parse_args()
    use_compile_cache()
    base = experiment_of(flags.steps, flags.activation)
    runs = [dataclasses.replace(base, seed=seed) for seed in range(flags.seeds)]
    modes = {"separate": separate, "sequential": sequential, "together": together}
    with tempfile.TemporaryDirectory() as folder:  # compiles all programs before they are timed
        for name, train in modes.items():
            train(runs if name == "together" else runs[:1], Path(folder) / name)
    print(f"jax {jax.__version__}, {parallel.describe()}, {flags.seeds} seeds, {flags.steps} steps")
    times: dict[str, list[float]] = {name: [] for name in modes}
    for _ in range(flags.rounds):
        results = {}
        for name, train in modes.items():
            with tempfile.TemporaryDirectory() as folder:
                start = time.perf_counter()
                results[name] = train(runs, Path(folder))
                times[name].append(time.perf_counter() - start)
    reference = results["separate"]
    for name, seconds in times.items():
        ratios = [a / b for a, b in zip(seconds, times["separate"], strict=True)]
        print(
            f"  {name:11}{statistics.median(seconds):8.2f} s   relative to separate: "
            f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})   "
            + summary(differences(results[name], reference))
        )
    by_rounding = []
    for draw in range(3):
        with tempfile.TemporaryDirectory() as folder:
            by_rounding.append(differences(perturbed(runs, Path(folder), draw), reference))
    print(f"  effect of rounding: {summary(np.max(by_rounding, axis=0))}")


if __name__ == "__main__":
    main()
