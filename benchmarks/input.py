"""Throughput of data sources and augmentations, and the time the device waits for data.

    python benchmarks/input.py [--parts sources augment wait] [--seconds 3] [--workers 0 2]
        [--only TEXT]

- sources: examples per second of `mtljax.data.pipeline.stream` in batches of 64, read by threads
  (workers 0) or processes of grain; and of the same files in a PyTorch `DataLoader` with the same
  number of workers, whose `Dataset` decodes and resizes with Pillow. "cached" reads the examples
  from the cache of `data.cache`, which was written before.
- augment: examples per second of each augmentation as a compiled function of a batch on the device,
  and of a torch equivalent per example, as in a `DataLoader`.
- wait: share of the training time in which the device waits for the next batch: from the end of a
  step to the dispatch of the next one. As in training, the next batch is requested while the device
  computes.

The parts `sources` and `augment` need `torch`. The data is generated in a temporary folder, except
Fashion-MNIST, which is read from the Debian package. Prints medians over the rounds.
"""

import argparse
import dataclasses
import io
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jax
import numpy as np
from input_data import array_records, jpegs, npys
from PIL import Image

from mtljax import Data, Experiment, compiler_options, find_experiment, parallel
from mtljax.build import load_source, train_step
from mtljax.data import (
    AUGMENTATIONS,
    LabelRequest,
    Source,
    make_augment,
    make_source,
    pipeline,
)
from mtljax.data.cache import cached_source
from mtljax.tasks import Classification
from mtljax.training.setup import set_up

BATCH = 64
FASHION = "/usr/share/datasets/fashion-mnist"
LABEL = [LabelRequest(Classification(name="label", num_classes=10), "label")]


def sources(root: Path) -> dict[str, Callable[[], Source]]:
    """Generates the data; returns {name: factory of the source}."""
    jpegs(root / "jpegs")
    npys(root / "npy")
    array_records(root / "tfds")
    masks = [LabelRequest(find_experiment("nyuv2").tasks[0], "label")]
    os.environ["XDG_CACHE_HOME"] = str(root / "cache")
    folder = f"folder:{root}/jpegs"
    resized = f"{folder},size=(128,128)"
    npy, records = f"npy_folders:{root}/npy", f"tfds:bench,data_dir={root}/tfds"
    cached = lambda text, requests=LABEL: cached_source(
        make_source(text, requests), 10, builds=True
    )
    factories = {
        "JPEGs of 256x256": lambda: make_source(folder, LABEL),
        "the same, decoder=pillow": lambda: make_source(folder, LABEL, decoder="pillow"),
        "the same, cached": lambda: cached(folder),
        "JPEGs resized to 128x128": lambda: make_source(resized, LABEL),
        "128x128, decoder=pillow": lambda: make_source(resized, LABEL, decoder="pillow"),
        "128x128, decoder=turbo_scaled": lambda: make_source(
            resized, LABEL, decoder="turbo_scaled"
        ),
        "128x128, cached": lambda: cached(resized),
        "npy_folders, 288x384 and a mask": lambda: make_source(npy, masks),
        "npy_folders, cached": lambda: cached(npy, masks),
        "tfds, PNGs of 32x32": lambda: make_source(records, LABEL),
        "tfds, cached": lambda: cached(records),
    }
    if Path(FASHION).is_dir():
        fashion = find_experiment("multi_fashion")
        factories["multi_fashion, in memory"] = lambda: load_source(fashion)
    return factories


def rate(batches: Iterator, seconds: float) -> float:
    """Examples per second, without the first batches, during which the workers start."""
    for _ in range(16):
        next(batches)
    count, start = 0, time.perf_counter()
    while (elapsed := time.perf_counter() - start) < seconds:
        count += len(jax.tree.leaves(next(batches))[0])
    return count / elapsed


def mtljax_batches(source: Source, workers: int) -> Iterator:
    """Batches of the training split, in the input pipeline of mtljax."""
    order = pipeline.BatchSampler(
        seed=0, size=len(source.train), batch_size=min(BATCH, len(source.train))
    )
    return pipeline.stream(source.train, order, slice(0, order.batch_size), 0, 10**6, workers)


def torch_batches(name: str, source: Source, root: Path, workers: int) -> Iterator:
    """Batches of the same examples from a PyTorch `DataLoader`."""
    import torch

    loader = torch.utils.data.DataLoader(
        TorchFiles(name, source, root), BATCH, shuffle=True, num_workers=workers, drop_last=False
    )
    while True:
        yield from ((image.numpy(), label) for image, label in loader)


class TorchFiles:
    """Typical PyTorch `Dataset` over the files."""

    def __init__(self, name: str, source: Source, root: Path):
        self.name, self.files = name, sorted((root / "jpegs" / "images").iterdir())
        self.npy, self.arrays = root / "npy" / "train", None
        if name.startswith("multi"):
            self.arrays = source.train.image, source.train.labels["left"]
        if name.startswith("tfds"):  # the same records, with a different decoder
            self.records = getattr(source.train, "split", source.train).examples.data

    def __len__(self) -> int:
        if self.arrays is not None:
            return len(self.arrays[0])
        if self.name.startswith("tfds"):
            return len(self.records)
        return 57 if self.name.startswith("npy") else len(self.files)

    def __getitem__(self, index: int):
        import torch

        if self.arrays is not None:
            return torch.from_numpy(self.arrays[0][index]), int(self.arrays[1][index])
        if self.name.startswith("npy"):
            image, label = (
                np.load(self.npy / kind / f"{index}.npy") for kind in ("image", "label")
            )
            return torch.from_numpy(image).permute(2, 0, 1), torch.from_numpy(label).long()
        if self.name.startswith("tfds"):
            record = self.records[index]
            image = Image.open(io.BytesIO(record["image"])).convert("RGB")
            return torch.from_numpy(np.array(image)).permute(2, 0, 1), record["label"]
        image = Image.open(self.files[index]).convert("RGB")
        if "128" in self.name:
            image = image.resize((128, 128), Image.Resampling.BILINEAR)
        return torch.from_numpy(np.array(image)).permute(2, 0, 1), index % 10


def measure_sources(root: Path, seconds: float, workers: list[int], rounds: int, only: str) -> None:
    print(f"\n{'examples/s':34} {'workers':>8} {'mtljax':>9} {'torch':>9} {'ratio':>7}")
    for name, make in sources(root).items():
        if only not in name:
            continue
        source = make()
        for count in workers:
            pairs = []
            for _ in range(rounds):
                jax_rate = rate(mtljax_batches(source, count), seconds)
                torch_rate = rate(torch_batches(name, source, root, count), seconds)
                pairs.append((jax_rate, torch_rate))
            a, b = (statistics.median(column) for column in zip(*pairs, strict=True))
            ratio = statistics.median(a / b for a, b in pairs)
            print(f"{name:34} {count:8} {a:9,.0f} {b:9,.0f} {ratio:6.2f}x", flush=True)


def torch_augmentation(name: str):
    """Torch equivalent for one image [3, H, W]; None if it is not common per example."""
    import torch
    from torch.nn import functional as F

    def affine(image, matrix):
        grid = F.affine_grid(matrix[None], (1, *image.shape), align_corners=False)
        return F.grid_sample(image[None], grid, align_corners=False, padding_mode="border")[0]

    def rotate_and_zoom(image):
        angle, zoom = torch.rand(2) * 0.3 - 0.15
        cos, sin = torch.cos(angle) * (1 + zoom), torch.sin(angle) * (1 + zoom)
        move = torch.rand(2) * 0.1
        return affine(image, torch.stack([cos, -sin, move[0], sin, cos, move[1]]).reshape(2, 3))

    def crop(image):
        side = int(image.shape[1] / 1.2)
        y, x = torch.randint(0, image.shape[1] - side + 1, (2,))
        part = image[None, :, y : y + side, x : x + side]
        return F.interpolate(part, image.shape[1:], mode="bilinear", align_corners=False)[0]

    def jitter(image):
        a, b, c = torch.rand(3) * 0.4 + 0.8
        image = image * a
        gray = image.mean(0, keepdim=True)
        image = gray + (image - gray) * b
        return image.mean() + (image - image.mean()) * c

    flip = lambda image: image.flip(-1) if torch.rand(()) < 0.5 else image
    return {"flip": flip, "crop": crop, "affine": rotate_and_zoom, "jitter": jitter}.get(name)


def measure_augmentations(seconds: float, rounds: int, size: int = 64) -> None:
    import torch

    print(f"\n{'examples/s at ' + f'{size}x{size}x3':34} {'mtljax':>18} {'torch':>9} {'ratio':>7}")
    rng = np.random.default_rng(0)
    image = rng.uniform(0, 1, (BATCH, size, size, 3)).astype(np.float32)
    task = Classification(name="label", num_classes=10)
    batch = {
        "image": image,
        "labels": {"label": np.zeros(BATCH, np.int32)},
        "present": {"label": np.ones(BATCH, bool)},
    }
    batch = jax.device_put(batch)
    for name in AUGMENTATIONS:
        augment = make_augment([name], [task])
        if augment is None:
            continue
        run = jax.jit(
            lambda key, batch, augment=augment: augment(jax.random.split(key, BATCH), batch)
        )
        key, torch_augment = jax.random.key(0), torch_augmentation(name)
        jax.block_until_ready(run(key, batch))
        images = [torch.from_numpy(x).permute(2, 0, 1) for x in image]

        def jax_batches(run=run, key=key):
            while True:
                yield jax.block_until_ready(run(key, batch))

        def augmented_examples(torch_augment=torch_augment, images=images):
            while True:
                yield torch.stack([torch_augment(image) for image in images]).numpy()

        jax_rate = statistics.median(rate(jax_batches(), seconds) for _ in range(rounds))
        if torch_augment is None:
            print(f"{name:34} {jax_rate:18,.0f}", flush=True)
            continue
        torch_rate = statistics.median(rate(augmented_examples(), seconds) for _ in range(rounds))
        ratio = jax_rate / torch_rate
        print(f"{name:34} {jax_rate:18,.0f} {torch_rate:9,.0f} {ratio:6.2f}x", flush=True)


def wait_share(experiment: Experiment, steps: int, workers: int) -> tuple[float, float]:
    """Returns (share of the time that the device waits, seconds per step), with data streamed."""
    setup = set_up(experiment, devices=1)
    source, placement = setup.source, setup.placement
    state = jax.jit(setup.new_state)(jax.random.key(0))
    step = jax.jit(
        train_step(experiment, setup.parts),
        donate_argnums=0,
        compiler_options=compiler_options(),
    )
    size = experiment.data.batch_size
    order = pipeline.BatchSampler(seed=0, size=len(source.train), batch_size=size)
    batches = pipeline.stream(source.train, order, slice(0, size), 0, 10**6, workers)
    for _ in range(2):  # the second step may compile for the sharding of the first step's result
        state, _ = jax.block_until_ready(step(state, placement.shard(next(batches))))
    batch = placement.shard(next(batches))
    loop_start = time.perf_counter()
    dispatched, finished = [], []
    with ThreadPoolExecutor(1) as watcher:
        for _ in range(steps):
            dispatched.append(time.perf_counter())
            state, logs = step(state, batch)
            finished.append(watcher.submit(time_when_ready, logs))
            batch = placement.shard(next(batches))  # while the device computes, as in training
    ends = [future.result() for future in finished]
    idle = (max(0.0, start - end) for start, end in zip(dispatched[1:], ends, strict=False))
    elapsed = ends[-1] - loop_start
    return sum(idle) / elapsed, elapsed / steps


def time_when_ready(logs: Any) -> float:
    """Waits for the results of a step; returns the time."""
    jax.block_until_ready(logs)
    return time.perf_counter()


def measure_waiting(root: Path, steps: int, workers: list[int]) -> None:
    if not (root / "jpegs").is_dir():
        jpegs(root / "jpegs")
    os.environ["XDG_CACHE_HOME"] = str(root / "cache")

    def of_files(arguments: str = "", trunk: str = "resnet18", **fields: Any) -> Experiment:
        data = Data(source=f"folder:{root}/jpegs{arguments}", keep_on_device="no", **fields)
        tasks = tuple(task for task, _ in LABEL)
        return Experiment(name="jpegs", tasks=tasks, data=data, trunk=trunk)

    widths = "cnn:widths=(16,32,64,128)"
    small: dict = {"arguments": ",size=(64,64)", "trunk": widths, "batch_size": 64}
    fashion = find_experiment("multi_fashion")
    streamed = dataclasses.replace(fashion.data, keep_on_device="no")
    cases = {
        "ResNet-18, 256x256 JPEGs, B=16": (of_files(batch_size=16), max(3, steps // 10)),
        "cnn, JPEGs resized to 64x64, B=64": (of_files(**small), steps),
        "the same, turbo_scaled": (of_files(**small, decoder="turbo_scaled"), steps),
        "the same, cached": (of_files(**small, cache=1.0), steps),
    }
    if Path(FASHION).is_dir():
        cases["multi_fashion, streamed"] = dataclasses.replace(fashion, data=streamed), steps
    print(f"\n{'the device waits':34} {'workers':>8} {'share':>9} {'ms/step':>9}")
    for name, (experiment, count) in cases.items():
        for num_workers in workers:
            share, seconds = wait_share(experiment, count, num_workers)
            print(f"{name:34} {num_workers:8} {share:9.2%} {1000 * seconds:9.1f}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parts = ("sources", "augment", "wait")
    parser.add_argument("--parts", nargs="+", choices=parts, default=parts)
    parser.add_argument("--seconds", type=float, default=3.0, help="time of each measurement")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=60, help="steps of each training")
    parser.add_argument("--only", default="", help="measure sources whose name contains this")
    parser.add_argument("--workers", type=int, nargs="+", default=[0, 2])
    options = parser.parse_args()
    print(f"{parallel.describe()}, {os.cpu_count()} cores, jax {jax.__version__}")
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        if "sources" in options.parts:
            measure_sources(root, options.seconds, options.workers, options.rounds, options.only)
        if "augment" in options.parts:
            measure_augmentations(options.seconds, options.rounds)
        if "wait" in options.parts:
            measure_waiting(root, options.steps, options.workers)


if __name__ == "__main__":
    main()
