"""How fast scenes are rendered, and how long training on them waits for its input.

    python -m benchmarks.rendering [--sizes 32 64 128] [--images 512] [--steps 60]

- Rendering, with all labels: for each size, the time until the first image (compiling, unless the
  compile cache has it), then images a second of one call for many, the fastest of three.
- Input of `--experiment scenes`: of the time of a training step, the share in which the batch is
  picked from data on the device, as the run does it; and with the data streamed (rendered anew by
  threads that run ahead, on the same cores), the share in which no batch is there yet.
"""

import argparse
import dataclasses
import os
import statistics
import time

import jax
import numpy as np

from mtljax import compilation
from mtljax.build import train_step
from mtljax.config import Experiment, find_experiment
from mtljax.data import pipeline
from mtljax.data.sources.scenes import scenes
from mtljax.training.executors import DeviceDataExecutor
from mtljax.training.programs import Programs
from mtljax.training.setup import set_up


def rendering(size: int, images: int) -> tuple[float, float]:
    """(seconds until the first image, images a second after that)."""
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


def picking(experiment: Experiment, steps: int) -> tuple[float, float]:
    """(seconds to pick a batch, seconds of a step with it), the medians, data on the device."""
    programs = Programs(set_up(experiment))
    runner, state = programs.executor([0], 0), programs.create(0)
    assert isinstance(runner, DeviceDataExecutor)
    pick, step = [], []
    for i in range(steps):
        start = time.perf_counter()
        jax.block_until_ready(runner.batch(i))
        pick.append(time.perf_counter() - start)
        start = time.perf_counter()
        state, _ = runner.run(state, i, 1)
        jax.block_until_ready(state)
        step.append(time.perf_counter() - start)
    return statistics.median(pick), statistics.median(step)


def waiting(experiment: Experiment, steps: int) -> tuple[float, float]:
    """(seconds of waiting for a batch, seconds of a step with it), the means, data streamed."""
    data = dataclasses.replace(experiment.data, keep_on_device="no")
    experiment = dataclasses.replace(experiment, data=data)
    programs = Programs(set_up(experiment))
    size, split = data.batch_size, programs.setup.source.train
    order = pipeline.BatchSampler(seed=0, size=len(split), batch_size=size)
    batches = pipeline.stream(split, order, slice(0, size), 0, steps + 10)
    step = jax.jit(
        train_step(experiment, programs.setup.parts),
        donate_argnums=0,
        compiler_options=compilation.compiler_options(),
    )
    state = programs.create(0)
    asked, began = 0.0, time.perf_counter()
    for i in range(steps + 10):
        if i == 10:  # compiled, and running evenly
            asked, began = 0.0, time.perf_counter()
        start = time.perf_counter()
        batch = programs.setup.placement.shard(next(batches))
        asked += time.perf_counter() - start
        state, _ = jax.block_until_ready(step(state, batch))
    return asked / steps, (time.perf_counter() - began) / steps


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", type=int, nargs="*", default=[32, 64, 128])
    parser.add_argument("--images", type=int, default=512, help="at 64 x 64; else as many pixels")
    parser.add_argument("--steps", type=int, default=60)
    args = parser.parse_args()
    compilation.use_compile_cache()
    busy = os.getloadavg()[0]
    print(f"{jax.devices()[0].device_kind}, {os.cpu_count()} cores, load {busy:.1f} before\n")
    print("| pixels | first image, s | images / s |")
    print("|---|---|---|")
    for size in args.sizes:
        first, rate = rendering(size, max(8, args.images * 64**2 // size**2))
        print(f"| {size} x {size} | {first:.1f} | {rate:.0f} |", flush=True)
    print("\n| input of scenes | waiting, ms | step, ms | share |")
    print("|---|---|---|---|")
    experiment = find_experiment("scenes")
    for name, measure in (("on the device", picking), ("streamed", waiting)):
        wait, step = measure(experiment, args.steps)
        print(f"| {name} | {1e3 * wait:.1f} | {1e3 * step:.0f} | {wait / step:.1%} |", flush=True)


if __name__ == "__main__":
    main()
