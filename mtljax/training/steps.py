"""The steps of a run or of a group of runs, chunk by chunk."""

import contextlib
import dataclasses
from collections.abc import Iterator, Sequence

from jaxtyping import PyTree

from mtljax.config import Experiment
from mtljax.step.state import TrainState
from mtljax.training.executors import NEVER, Cost, Logs
from mtljax.training.programs import CompiledMeasure, Programs, copy_for_measurement
from mtljax.training.stopping import Interrupted, StopSignal

STEPS_PER_TASK = 50
"""Steps between two measurements, per task: keeps the cost of telemetry below 5 %."""
MIN_LOG_LINES = 10
"""Log lines between two measurements, at least."""


@dataclasses.dataclass
class Chunk:
    """Consecutive steps that were taken, or dispatched, at once."""

    step: int
    """Number of steps taken, these included."""
    count: int
    """Number of steps of this chunk."""
    state: TrainState
    """State after them, valid until the next chunk, which starts from it; it may be replaced."""
    logs: Logs
    """Logs of each step."""
    measurement: PyTree | None
    """Measurement at the first step, if one was due."""
    cost: Cost
    """Compilation time and memory of the program."""


def take_steps(
    programs: Programs,
    seeds: Sequence[int],
    state: TrainState,
    start: int,
    *,
    measure: CompiledMeasure | None = None,
    measure_every: int = 0,
    stop: StopSignal = NEVER,
) -> Iterator[Chunk]:
    """Takes the steps of an experiment, from `start` to its end.

    Args:
      seeds: Seeds of the runs, which determine the order of the examples.
      state: State at `start`, stacked if there are several runs. It is donated.
      start: Number of steps taken before.
      measure: Measurement to take during training.
      measure_every: Steps between two measurements, a multiple of `log_every`; 0: none.
      stop: Signal that ends a chunk of slow steps before its end, and the iteration if no step was
        taken.

    Yields:
      Chunks that end at log steps, evaluations, the last step and a signal to stop.
    """
    experiment = programs.setup.experiment
    with stop.interruptible():
        executor = programs.executor(seeds, start)
    step = start
    while step < experiment.steps:
        count = steps_to_next_stop(experiment, step)
        before, measurement = None, None
        if measure is not None and measure_every and step % measure_every == 0:
            before, batch = copy_for_measurement(state), executor.batch(step)
            measure.compile_ahead(before, state.params, batch)
        state, logs = executor.run(state, step, count, stop)
        if not logs.count:
            return
        if measure is not None and before is not None and not stop.is_pending():
            with contextlib.suppress(Interrupted), stop.interruptible():  # it may compile
                measurement = measure(before, state.params, batch)
        step += logs.count
        chunk = Chunk(step, logs.count, state, logs, measurement, executor.program.cost)
        yield chunk
        state = chunk.state


def steps_to_next_stop(experiment: Experiment, step: int) -> int:
    """Returns the number of steps until the next log step, evaluation or the end."""
    return min(
        experiment.log_every - step % experiment.log_every,
        experiment.eval_every - step % experiment.eval_every,
        experiment.steps - step,
    )


def telemetry_interval(experiment: Experiment) -> int:
    """Returns the steps between two measurements, a multiple of `log_every`; 0: none."""
    every = experiment.telemetry_every
    if every is None:
        every = max(STEPS_PER_TASK * len(experiment.tasks), MIN_LOG_LINES * experiment.log_every)
    if len(experiment.tasks) < 2:
        return 0
    return -(-every // experiment.log_every) * experiment.log_every
