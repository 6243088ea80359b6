"""Task affinity: effect of a step on one task's loss on the losses of the other tasks."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree

from mtljax.config import Experiment, to_json
from mtljax.step.state import TrainState
from mtljax.step.task_gradients import task_gradients
from mtljax.step.telemetry import ProbePoint
from mtljax.training.programs import CompiledMeasure, Measure, Programs
from mtljax.training.steps import take_steps, telemetry_interval
from mtljax.utils.files import write_json


def make_affinity(
    probe: Callable[[TrainState, Mapping[str, Any]], ProbePoint], step_size: float
) -> Measure:
    """Makes `measure(state, params, batch) -> affinity [T, T]`: pure; `params` are ignored.

    Entry (i, j) is 1 - L_j(after) / L_j(before) for a gradient step of `step_size` on the loss of
    task i alone, taken in the shared parameters: positive where it helps task j. The step is
    discarded. NaN where a task has no label in the batch.

    Args:
      probe: Made by `mtljax.step.telemetry.make_probe`, for T tasks.
      step_size: Size of the trial steps; the paper takes those of its optimizer.

    References:
      Fifty et al., 2021, arXiv:2109.04617
    """

    def measure(state: TrainState, params: PyTree, batch: Mapping[str, Any]) -> Array:
        del params
        shared, forward, sums = probe(state, batch)
        scale = 1 / jnp.where(forward.counts > 0, forward.counts, jnp.nan)
        before = forward.sums * scale
        rows = task_gradients(forward, "parameters")
        after = []
        # In turn: on CPU, a batch of convolutions with different kernels is slow.
        for i in range(len(scale)):
            moved = jax.tree.map(lambda p, g, i=i: p - step_size * scale[i] * g[i], shared, rows)
            after.append(sums(moved) * scale)
        return 1 - jnp.stack(after) / before

    return measure


def measure_affinity(
    experiment: Experiment, folder: Path, programs: Programs, measure: CompiledMeasure
) -> Float[np.ndarray, "N T T"]:
    """Trains all tasks together with one seed, and measures their affinity N times.

    The measurements are stored in `folder/seed-N.json` and not repeated. `measure` is the compiled
    measurement of `make_affinity`.
    """
    file = folder / f"seed-{experiment.seed}.json"
    config = to_json(experiment)
    if file.is_file():
        stored = json.loads(file.read_text())
        if stored["config"] == config:
            return np.array(stored["affinity"], float)
    every = max(telemetry_interval(experiment) // 4, experiment.log_every)
    every -= every % experiment.log_every
    state, seeds = programs.create(experiment.seed), [experiment.seed]
    chunks = take_steps(programs, seeds, state, 0, measure=measure, measure_every=every)
    measured = [jax.device_get(c.measurement) for c in chunks if c.measurement is not None]
    affinity = np.array(measured, float)
    folder.mkdir(parents=True, exist_ok=True)
    write_json(file, {"config": config, "affinity": affinity.tolist()})
    return affinity
