"""Task affinity: what a step on one task's loss does to the losses of the others."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from mtljax.compilation import compiler_options
from mtljax.config import Experiment, to_json
from mtljax.step import telemetry
from mtljax.step.objective import task_rows
from mtljax.step.state import TrainState
from mtljax.training.loop import steps_to_next_line, telemetry_interval
from mtljax.training.programs import Programs
from mtljax.utils.files import write_json


def make_affinity(
    probe: Callable[[TrainState, Mapping[str, Any]], telemetry.ProbePoint], step_size: float
) -> Callable[[TrainState, Mapping[str, Any]], Float[Array, "T T"]]:
    """Makes `measure(state, batch) -> affinity [T, T]`: pure.

    Entry (i, j) is 1 - L_j(after) / L_j(before), where a gradient step of `step_size` on task i's
    loss alone was taken in the shared parameters: positive where i's step helps j. Nothing is kept
    of the step. NaN where a task has no label in the batch.

    Args:
      probe: Made by `mtljax.step.telemetry.make_probe`, of T tasks.
      step_size: Of the trial steps; the paper's are those of its optimizer.

    References:
      Fifty et al., 2021, arXiv:2109.04617
    """

    def measure(state: TrainState, batch: Mapping[str, Any]) -> Float[Array, "T T"]:
        shared, forward, sums = probe(state, batch)
        scale = 1 / jnp.where(forward.counts > 0, forward.counts, jnp.nan)
        before = forward.sums * scale
        rows = task_rows(forward, "parameters")
        after = []
        # One after the other: a batch of convolutions with different kernels is slow on CPUs.
        for i in range(len(scale)):
            moved = jax.tree.map(lambda p, g, i=i: p - step_size * scale[i] * g[i], shared, rows)
            after.append(sums(moved) * scale)
        return 1 - jnp.stack(after) / before

    return measure


def measure_affinity(
    experiment: Experiment,
    folder: Path,
    programs: Programs,
    progress: Callable[[int], None] = lambda step: None,
) -> Float[np.ndarray, "N T T"]:
    """Trains all tasks together with one seed, and measures their affinity on the way.

    What was measured is kept in `folder/seed-N.json`, and not measured again.

    Args:
      experiment: With its seed.
      folder: Where the measurements are kept.
      programs: Of the experiment.
      progress: Called with the number of steps that are behind.

    Returns:
      N measurements.
    """
    file = folder / f"seed-{experiment.seed}.json"
    config = to_json(experiment)
    if file.is_file():
        kept = json.loads(file.read_text())
        if kept["config"] == config:
            return np.array(kept["affinity"], float)
    measure = jax.jit(
        make_affinity(programs.probe, experiment.learning_rate),
        out_shardings=programs.placement.replicated,
        compiler_options=compiler_options(),
    )
    every = max(telemetry_interval(experiment) // 4, experiment.log_every)
    every -= every % experiment.log_every
    state, step, found = programs.create(experiment.seed), 0, []
    runner = programs.feed([experiment.seed], 0)
    while step < experiment.steps:
        progress(step)
        if step % every == 0:
            slim = state.replace(opt_state=None, balancer_state=None, ema=None)
            found.append(jax.device_get(measure(slim, runner.batch(step))))
        count = steps_to_next_line(experiment, step)
        state, _ = runner.run(state, step, count)
        step += count
    folder.mkdir(parents=True, exist_ok=True)
    affinity = np.array(found, float)
    write_json(file, {"config": config, "affinity": affinity.tolist()})
    return affinity
