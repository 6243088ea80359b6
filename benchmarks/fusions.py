"""What each fusion costs: time of a training step and parameters, relative to `none`.

    python -m benchmarks.fusions [--experiment scenes_all] [--repeats 5] [--save FILE]

Whole training steps of an experiment as it is, but for the fusion: its trunk, tasks, losses,
balancer and optimizer, on one rendered batch. `task_prompt` needs a ViT, and is compared with
`none` on that ViT. Fusions take turns, so that whatever else the machine does slows all of them.
Prints a table in Markdown.
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

from mtljax import compiler_options
from mtljax.build import build, open_source, train_step
from mtljax.config import Experiment, find_experiment
from mtljax.data.pipeline import read_batch
from mtljax.models import FUSIONS
from mtljax.step.state import create_state

VIT = "vit_ti:width=96,heads=3,depth=8,stages=4,patch=8,image_size=64"
TRUNK_OF = {"task_prompt": VIT}
"""Of the fusions that cannot do with the experiment's own."""


class Program(NamedTuple):
    """A compiled step and what it starts from."""

    step: Any
    state: Any
    batch: Any
    compile_seconds: float
    parameters: int

    def seconds(self) -> float:
        """Of one step."""
        start = time.perf_counter()
        state, logs = jax.block_until_ready(self.step(self.state, self.batch))
        taken = time.perf_counter() - start
        assert int(logs["skipped"]) == 0, "the step was not finite"
        del state
        return taken


def compiled(experiment: Experiment) -> Program:
    """The experiment's step, on its first batch."""
    source = open_source(experiment)
    batch = jax.device_put(read_batch(source.train, np.arange(experiment.data.batch_size)))
    parts = build(experiment, source.mean, source.std)
    arguments = parts.model, experiment.tasks, parts.balancer, parts.optimizer, batch
    state = jax.jit(lambda key: create_state(key, *arguments))(jax.random.key(0))
    start = time.perf_counter()
    step = (
        jax.jit(train_step(experiment, parts), compiler_options=compiler_options())
        .lower(state, batch)
        .compile()
    )
    taken = time.perf_counter() - start
    count = sum(leaf.size for leaf in jax.tree.leaves(state.params))
    return Program(step, state, batch, taken, count)


def measure(experiment: Experiment, repeats: int) -> dict[tuple[str, str], tuple[Program, float]]:
    """{(fusion, trunk): (program, seconds of its fastest step)}."""
    pairs = [(name, TRUNK_OF.get(name, experiment.trunk)) for name in FUSIONS]
    pairs += [("none", trunk) for trunk in TRUNK_OF.values()]
    programs = {}
    for fusion, trunk in pairs:
        changed = dataclasses.replace(experiment, fusion=fusion, trunk=trunk)
        programs[fusion, trunk] = compiled(changed)
        print(f"{fusion} compiled in {programs[fusion, trunk].compile_seconds:.0f} s", flush=True)
    rounds = [{pair: p.seconds() for pair, p in programs.items()} for _ in range(1 + repeats)]
    return {
        pair: (program, min(taken[pair] for taken in rounds[1:]))
        for pair, program in programs.items()
    }


def table(experiment: Experiment, repeats: int) -> str:
    """The table in Markdown, under a line that says what was measured."""
    measured = measure(experiment, repeats)
    device = f"{os.cpu_count()} x {platform.processor() or platform.machine()}"
    if jax.default_backend() != "cpu":
        device = jax.devices()[0].device_kind
    lines = [
        f"Training steps of `{experiment.name}`: {len(experiment.tasks)} tasks, "
        f"{experiment.data.batch_size} images, `{experiment.trunk}`, {experiment.balancer}; "
        f"fastest of {repeats} in turn, {device}, jax {jax.__version__}, {date.today()}.",
        f"`task_prompt` and the second `none` are on `{VIT}`.",
        "",
        "| fusion | ms | time / none | parameters | parameters / none | compiling, s |",
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
    parser.add_argument("--repeats", type=int, default=5, help="steps, of which the fastest counts")
    parser.add_argument("--save", type=Path, help="also write the table there")
    args = parser.parse_args()
    found = table(find_experiment(args.experiment), args.repeats)
    print("\n" + found)
    if args.save:
        args.save.write_text("# What each fusion costs\n\n" + found)


if __name__ == "__main__":
    main()
