"""Cost of each fusion: time of a training step and number of parameters, relative to `none`.

    python -m benchmarks.fusions [--experiment scenes_all] [--repeats 5] [--save FILE]

Complete training steps of an experiment in which only the fusion is replaced, on one batch.
`task_prompt` needs a ViT trunk and is compared with `none` on that trunk. Fusions are timed
alternately, so that other load on the machine affects all of them. Prints a Markdown table.
"""

import argparse
import dataclasses
import os
import platform
import time
from datetime import date
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from mtljax import Experiment, compiler_options, find_experiment
from mtljax.build import build, open_source, train_step
from mtljax.data.pipeline import read_batch
from mtljax.models import FUSIONS
from mtljax.step.state import create_state

VIT = "vit_ti:width=96,heads=3,depth=8,stages=4,patch=8,image_size=64"
TRUNK_OF = {"task_prompt": VIT}
"""Trunks of the fusions that do not support the trunk of the experiment."""


class Program(NamedTuple):
    """Compiled train step with its initial state and batch."""

    step: Any
    state: Any
    batch: Any
    compile_seconds: float
    parameters: int

    def seconds(self) -> float:
        """Wall time of one step."""
        start = time.perf_counter()
        _, logs = jax.block_until_ready(self.step(self.state, self.batch))
        elapsed = time.perf_counter() - start
        assert int(logs["skipped"]) == 0, "the step was not finite"
        return elapsed


def compile_step(experiment: Experiment) -> Program:
    """Compiles the train step of an experiment for its first batch."""
    source = open_source(experiment)
    batch = jax.device_put(read_batch(source.train, np.arange(experiment.data.batch_size)))
    parts = build(experiment, source.mean, source.std)
    arguments = parts.model, experiment.tasks, parts.balancer, parts.optimizer, batch
    options = {
        "level": experiment.level,
        "ema": experiment.ema is not None,
        "freeze": experiment.freeze,
    }
    state = jax.jit(lambda key: create_state(key, *arguments, **options))(jax.random.key(0))
    start = time.perf_counter()
    step = (
        jax.jit(train_step(experiment, parts), compiler_options=compiler_options())
        .lower(state, batch)
        .compile()
    )
    compile_seconds = time.perf_counter() - start
    count = sum(leaf.size for leaf in jax.tree.leaves(state.params))
    return Program(step, state, batch, compile_seconds, count)


def measure(experiment: Experiment, repeats: int) -> dict[tuple[str, str], tuple[Program, float]]:
    """Returns {(fusion, trunk): (program, seconds of its fastest step)}."""
    pairs = [(name, TRUNK_OF.get(name, experiment.trunk)) for name in FUSIONS]
    pairs += [("none", trunk) for trunk in TRUNK_OF.values()]
    programs = {}
    for fusion, trunk in pairs:
        changed = dataclasses.replace(experiment, fusion=fusion, trunk=trunk)
        programs[fusion, trunk] = compile_step(changed)
        print(f"{fusion} compiled in {programs[fusion, trunk].compile_seconds:.0f} s", flush=True)
    rounds = [{pair: p.seconds() for pair, p in programs.items()} for _ in range(1 + repeats)]
    return {
        pair: (program, min(seconds[pair] for seconds in rounds[1:]))
        for pair, program in programs.items()
    }


def table(experiment: Experiment, repeats: int) -> str:
    """Returns a Markdown table with a line on the setting of the measurement."""
    measured = measure(experiment, repeats)
    device = f"{os.cpu_count()} x {platform.processor() or platform.machine()}"
    if jax.default_backend() != "cpu":
        device = jax.devices()[0].device_kind
    lines = [
        f"Training steps of `{experiment.name}`: {len(experiment.tasks)} tasks, "
        f"{experiment.data.batch_size} images, `{experiment.trunk}`, {experiment.balancer}; "
        f"fastest of {repeats} repeats, {device}, jax {jax.__version__}, {date.today()}.",
        f"`task_prompt` and the second `none` are on `{VIT}`.",
        "",
        "| fusion | ms | time / none | parameters | parameters / none | compilation, s |",
        "|---|---|---|---|---|---|",
    ]
    for (fusion, trunk), (program, seconds) in measured.items():
        base, base_seconds = measured["none", trunk]
        lines.append(
            f"| {fusion} | {1e3 * seconds:.0f} | {seconds / base_seconds:.2f} "
            f"| {program.parameters:,} | {program.parameters / base.parameters:.2f} "
            f"| {program.compile_seconds:.0f} |"
        )
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--experiment", default="scenes_all")
    parser.add_argument(
        "--repeats", type=int, default=5, help="timed steps per fusion; the fastest counts"
    )
    parser.add_argument("--save", type=Path, help="also write the table to this file")
    args = parser.parse_args()
    text = table(find_experiment(args.experiment), args.repeats)
    print("\n" + text)
    if args.save:
        args.save.write_text("# Cost of each fusion\n\n" + text)


if __name__ == "__main__":
    main()
