"""Rendering speed of scenes, and input wait time when training on them.

    python -m benchmarks.rendering [--sizes 32 64 128] [--images 512] [--steps 60]

- Rendering with all labels: for each size, the time to the first image (including compilation,
  unless it is in the compile cache), then images per second of one call for many images, the
  fastest of three.
- Input of `--experiment scenes`, as a share of the time of a training step: gathering the batch
  from data on the device, as in the run; and waiting for the batch when data is streamed, that is
  rendered by prefetching threads on the same cores.
"""

import argparse
import dataclasses
import os
import statistics
import time

import jax
import numpy as np

from mtljax import Experiment, compiler_options, find_experiment, parallel, use_compile_cache
from mtljax.build import train_step
from mtljax.data import pipeline
from mtljax.data.sources.scenes import scenes
from mtljax.training.executors import DeviceDataExecutor
from mtljax.training.programs import Programs
from mtljax.training.setup import set_up


def rendering(size: int, images: int) -> tuple[float, float]:
    """Returns (seconds to the first image, images per second of later calls)."""
    split = scenes(size=size, train=images).train
    start = time.perf_counter()
    split[0]
    first = time.perf_counter() - start
    seconds = []
    for _ in range(3):
        start = time.perf_counter()
        split.take(np.arange(images))
        seconds.append(time.perf_counter() - start)
    return first, images / min(seconds)


def gather_time(experiment: Experiment, steps: int) -> tuple[float, float]:
    """Returns median seconds of (gathering a batch, a step), with data on the device."""
    programs = Programs(set_up(experiment))
    executor, state = programs.executor([0], 0), programs.create(0)
    assert isinstance(executor, DeviceDataExecutor)
    gather, step = [], []
    for i in range(steps):
        start = time.perf_counter()
        jax.block_until_ready(executor.batch(i))
        gather.append(time.perf_counter() - start)
        start = time.perf_counter()
        state, _ = executor.run(state, i, 1)
        jax.block_until_ready(state)
        step.append(time.perf_counter() - start)
    return statistics.median(gather), statistics.median(step)


def wait_time(experiment: Experiment, steps: int) -> tuple[float, float]:
    """Returns mean seconds of (waiting for a batch, a step including the wait), data streamed."""
    data = dataclasses.replace(experiment.data, keep_on_device="no")
    experiment = dataclasses.replace(experiment, data=data)
    programs = Programs(set_up(experiment))
    size, split = data.batch_size, programs.setup.source.train
    order = pipeline.BatchSampler(seed=0, size=len(split), batch_size=size)
    batches = pipeline.stream(split, order, slice(0, size), 0, steps + 10)
    step = jax.jit(
        train_step(experiment, programs.setup.parts),
        donate_argnums=0,
        compiler_options=compiler_options(),
    )
    state = programs.create(0)
    wait, loop_start = 0.0, time.perf_counter()
    for i in range(steps + 10):
        if i == 10:  # after compilation and warm-up
            wait, loop_start = 0.0, time.perf_counter()
        start = time.perf_counter()
        batch = programs.setup.placement.shard(next(batches))
        wait += time.perf_counter() - start
        state, _ = jax.block_until_ready(step(state, batch))
    return wait / steps, (time.perf_counter() - loop_start) / steps


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", type=int, nargs="*", default=[32, 64, 128])
    parser.add_argument(
        "--images",
        type=int,
        default=512,
        help="at 64 x 64; other sizes: same number of pixels",
    )
    parser.add_argument("--steps", type=int, default=60)
    args = parser.parse_args()
    use_compile_cache()
    load = os.getloadavg()[0]
    print(f"{parallel.describe()}, {os.cpu_count()} cores, load {load:.1f} at start\n")
    print("| pixels | first image, s | images / s |")
    print("|---|---|---|")
    for size in args.sizes:
        first, rate = rendering(size, max(8, args.images * 64**2 // size**2))
        print(f"| {size} x {size} | {first:.1f} | {rate:.0f} |", flush=True)
    print("\n| input of scenes | waiting, ms | step, ms | share |")
    print("|---|---|---|---|")
    experiment = find_experiment("scenes")
    for name, measure in (("on the device", gather_time), ("streamed", wait_time)):
        wait, step = measure(experiment, args.steps)
        print(f"| {name} | {1e3 * wait:.1f} | {1e3 * step:.0f} | {wait / step:.1%} |", flush=True)


if __name__ == "__main__":
    main()
