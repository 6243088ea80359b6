"""How fast scenes are rendered, with all of their labels.

    python -m benchmarks.rendering [--sizes 32 64 128] [--images 512]

For each size, the time until the first image (compiling, unless the compile cache has it), then
images a second of one call for many, the fastest of three.
"""

import argparse
import os
import time

import jax
import numpy as np

from mtljax.data.sources.scenes import scenes
from mtljax.parallel import use_compile_cache


def measure(size: int, images: int) -> tuple[float, float]:
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", type=int, nargs="+", default=[32, 64, 128])
    parser.add_argument("--images", type=int, default=512, help="at 64 x 64; else as many pixels")
    args = parser.parse_args()
    use_compile_cache()
    busy = os.getloadavg()[0]
    print(f"{jax.devices()[0].device_kind}, {os.cpu_count()} cores, load {busy:.1f} before\n")
    print("| pixels | first image, s | images / s |")
    print("|---|---|---|")
    for size in args.sizes:
        first, rate = measure(size, max(8, args.images * 64**2 // size**2))
        print(f"| {size} x {size} | {first:.1f} | {rate:.0f} |", flush=True)


if __name__ == "__main__":
    main()
