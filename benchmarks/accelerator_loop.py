"""Train loop on an accelerator, for benchmarks/accelerator.py: one JSON row per case.

    python benchmarks/accelerator_loop.py [jpeg seeds] [--small]

- jpeg: images/s of the loop of the command line on a folder of JPEG files (ResNet-50, three tasks,
  batch 256, 224x224, flips), over those of its compiled step on a batch on the device
- seeds: seconds of five seeds of the experiment `digits` side by side, over those of one, without
  reports; all programs come from the compile cache
"""

import csv
import dataclasses
import os
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import jax
import numpy as np
from PIL import Image
from timing import round_times
from workloads import run_cases

from mtljax import Data, Experiment, find_experiment, use_compile_cache
from mtljax.build import train_step
from mtljax.tasks import Classification, Regression
from mtljax.training.executors import compile_step
from mtljax.training.loop import train_group
from mtljax.training.programs import Programs
from mtljax.training.setup import set_up


def write_image(path, size):
    """Writes a JPEG file of blurred noise, of about the size of a photograph's."""
    rng = np.random.default_rng(int(path.stem))
    coarse = Image.fromarray(rng.integers(0, 256, (16, 16, 3), np.uint8))
    smooth = np.asarray(coarse.resize((size, size), Image.Resampling.BICUBIC)).astype(int)
    pixels = np.clip(smooth + rng.integers(-12, 12, smooth.shape), 0, 255)
    Image.fromarray(pixels.astype(np.uint8)).save(path, quality=90)


def write_folder(root, count, size):
    """Writes images and labels.csv."""
    (root / "images").mkdir(parents=True)
    paths = [root / "images" / f"{i}.jpg" for i in range(count)]
    with ProcessPoolExecutor() as pool:
        list(pool.map(write_image, paths, [size] * count, chunksize=64))
    rng = np.random.default_rng(0)
    with (root / "labels.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["image", "a", "b", "c"])
        for path in paths:
            values = rng.integers(0, 10), rng.integers(0, 5), round(float(rng.normal()), 3)
            writer.writerow([path.name, *values])


def jpeg_experiment(root, small):
    side, batch, steps = (32, 4, 6) if small else (224, 256, 150)
    cores = os.cpu_count() or 1
    return Experiment(
        name="jpeg",
        tasks=(
            Classification(name="a", num_classes=10),
            Classification(name="b", num_classes=5),
            Regression(name="c", mirror="keep"),
        ),
        data=Data(
            source=f"folder:{root},size=({side},{side})",
            batch_size=batch,
            augment=("flip",),
            keep_on_device="no",
            workers=cores - 2 if cores > 4 else 0,
        ),
        trunk="resnet50" + (":depths=(1,1,1,1)" if small else ""),
        dtype="bfloat16",
        steps=steps,
        log_every=steps // 3,
        eval_every=steps,
        telemetry_every=0,
    )


def jpeg(small):
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        start = time.perf_counter()
        write_folder(root / "data", 40 if small else 6000, 40 if small else 256)
        written = time.perf_counter() - start
        experiment = jpeg_experiment(root / "data", small)
        programs = Programs(set_up(experiment))
        (result,) = train_group([experiment], [root / "run"], programs, quiet=True, report=False)
        step = bare_step(experiment, programs, seconds=0.5 if small else 5)
        loop = result.examples_per_second
        measured = {"loop images/s": loop, "step images/s": step, "seconds to write": written}
        return {"ratio": loop / step, "measured": measured, "device": device()}


def bare_step(experiment, programs, seconds):
    """Images per second of the compiled step, on one batch on the device."""
    state, batch = programs.create(0), programs.executor([0], 0).batch(0)
    step = jax.jit(train_step(experiment, programs.setup.parts), donate_argnums=0)
    step = compile_step(step.trace(state, batch))

    def call():
        nonlocal state
        state, _ = step(state, batch)

    times = round_times(call, lambda: jax.block_until_ready(state.params), seconds)
    return experiment.data.batch_size / np.median(times)


def seeds(small):
    base = dataclasses.replace(find_experiment("digits"), steps=20 if small else 600)
    runs = [dataclasses.replace(base, seed=seed) for seed in range(5)]
    seconds = {1: [], 5: []}
    for _ in range(1 if small else 3):
        for count, times in seconds.items():
            programs = Programs(set_up(base))  # the first round fills the compile cache
            with tempfile.TemporaryDirectory() as folder:
                folders = [Path(folder) / str(run.seed) for run in runs[:count]]
                start = time.perf_counter()
                train_group(runs[:count], folders, programs, quiet=True, report=False)
                times.append(time.perf_counter() - start)
    one, five = (np.median(times[1:] or times) for times in seconds.values())
    measured = {"one seed, s": one, "five seeds, s": five}
    return {"ratio": five / one, "measured": measured, "device": device()}


def device():
    return jax.devices()[0].device_kind


CASES = {"jpeg": jpeg, "seeds": seeds}


if __name__ == "__main__":
    use_compile_cache()
    run_cases("loop", CASES, __doc__)
