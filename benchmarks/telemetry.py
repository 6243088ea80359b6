"""Overhead of gradient telemetry at its default interval, relative to the time of the train steps.

    python benchmarks/telemetry.py [--rounds 9]

For networks of increasing size: the median time of a step of the train loop and of one measurement,
and the relative cost of measurements at the default interval with equal weighting, the cheapest
balancer.
"""

import argparse
import dataclasses
import statistics
import time

import jax

from mtljax import find_experiment, parallel, use_compile_cache
from mtljax.training.programs import Programs, copy_for_measurement
from mtljax.training.setup import set_up
from mtljax.training.steps import telemetry_interval

CASES = {
    "digits, mlp": ("digits", {"trunk": "mlp:widths=(64,)"}),
    "digits, cnn": ("digits", {}),
    "multi_digits, cnn": ("multi_digits", {}),
}


def seconds(call) -> float:
    """Wall time of a call, including the computation of its result."""
    start = time.perf_counter()
    jax.block_until_ready(call())
    return time.perf_counter() - start


def case(experiment, rounds: int) -> tuple[float, float]:
    """Median seconds of a step and of a measurement, timed alternately."""
    programs = Programs(set_up(experiment, devices=1))
    state, executor = programs.create(0), programs.executor([0], 0)
    chunk = experiment.log_every
    steps, measurements = [], []
    for k in range(rounds + 1):
        before, batch = copy_for_measurement(state), executor.batch(k * chunk)
        start = time.perf_counter()
        state, _ = executor.run(state, k * chunk, chunk)
        jax.block_until_ready(state)
        step = (time.perf_counter() - start) / chunk
        measured = seconds(lambda: programs.telemetry(before, state.params, batch))  # noqa: B023
        if k:  # the first round compiles
            measurements.append(measured)
            steps.append(step)
    return statistics.median(steps), statistics.median(measurements)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=9)
    rounds = parser.parse_args().rounds
    use_compile_cache()
    print(f"jax {jax.__version__}, {parallel.describe(1)}")
    for name, (base, changes) in CASES.items():
        experiment = dataclasses.replace(find_experiment(base), **changes)
        step, measurement = case(experiment, rounds)
        every = telemetry_interval(experiment)
        print(
            f"{name:20} step {1e3 * step:8.3f} ms   measurement {1e3 * measurement:8.3f} ms   "
            f"every {every} steps: {100 * measurement / (every * step):.2f} %"
        )


if __name__ == "__main__":
    main()
