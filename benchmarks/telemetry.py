"""What measuring the tasks' gradients costs at its default interval, as a share of the steps' time.

    python benchmarks/telemetry.py [--rounds 9]

For networks from small to large: the median time of a step of the train loop, of one measurement,
and the share that measurements at the default interval add to equal weighting, the plainest method.
"""

import argparse
import dataclasses
import statistics
import time

import jax

from mtljax import compilation, parallel
from mtljax.config import find_experiment
from mtljax.step import telemetry
from mtljax.training.programs import Programs
from mtljax.training.setup import set_up

CASES = {
    "digits, mlp": ("digits", {"trunk": "mlp:widths=(64,)"}),
    "digits, cnn": ("digits", {}),
    "multi_digits, cnn": ("multi_digits", {}),
}


def seconds(call) -> float:
    """How long a call takes, until its result is there."""
    began = time.perf_counter()
    jax.block_until_ready(call())
    return time.perf_counter() - began


def case(experiment, rounds: int) -> tuple[float, float]:
    """Median seconds of a step and of a measurement, taken in turn."""
    programs = Programs(set_up(experiment, devices=1))
    state, runner = programs.create(0), programs.executor([0], 0)
    chunk = experiment.log_every
    steps, measurements = [], []
    for k in range(rounds + 1):
        kept, batch = programs.keep(state), runner.batch(k * chunk)
        began = time.perf_counter()
        state, logs = runner.run(state, k * chunk, chunk)
        jax.block_until_ready(state)
        step = (time.perf_counter() - began) / chunk
        measured = seconds(lambda: programs.measure(kept, state, batch, 1))  # noqa: B023
        if k:  # the first compiles
            measurements.append(measured)
            steps.append(step)
    return statistics.median(steps), statistics.median(measurements)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=9)
    rounds = parser.parse_args().rounds
    compilation.use_compile_cache()
    print(f"jax {jax.__version__}, {parallel.describe(1)}")
    for name, (base, changes) in CASES.items():
        experiment = dataclasses.replace(find_experiment(base), **changes)
        step, measurement = case(experiment, rounds)
        every = telemetry.interval(experiment)
        print(
            f"{name:20} step {1e3 * step:8.3f} ms   measurement {1e3 * measurement:8.3f} ms   "
            f"every {every} steps: {100 * measurement / (every * step):.2f} %"
        )


if __name__ == "__main__":
    main()
