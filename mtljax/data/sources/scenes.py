"""Source of rendered indoor scenes: any number of images with exact labels of many kinds."""

import dataclasses
import functools
import os
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int
from rich.console import Console
from rich.progress import track

from mtljax.data.base import Batch, Example, Source
from mtljax.data.scenes import render
from mtljax.utils.terminal import can_show_bar

SMALLEST, LARGEST = 32, 512
"""Limits of the height and width."""
MEAN, STD = (129.6, 126.1, 120.0), (44.4, 43.3, 41.8)
"""Red, green and blue, measured over many images; equal for all sizes and seeds."""
_CPU_PIXELS, _ACCELERATOR_PIXELS = 4 * 64**2, 128 * 64**2
"""Pixels rendered at once; few on CPUs, so that intermediate arrays stay in the cache."""
_PROGRESS_SECONDS = 2.0
"""Expected duration above which a progress bar is shown."""

Item = TypeVar("Item")


def scenes(
    size: int = 64, train: int = 4096, validation: int = 512, test: int = 512, seed: int = 0
) -> Source:
    """Ray-cast rooms with solids: 8-bit RGB images and exact labels of twelve kinds.

    Rooms, cameras, lights and noise, and the pose, size, color and pattern of every object are
    random; appearance carries no information about the kind of an object. Image i of a split
    depends on (seed, split, i) only: no image is stored, and no two splits share one.

    Labels are exact at the pixel centers, in meters; the camera's x points right, y up and z back:

        segmentation  [H, W] one of `mtljax.data.scenes.CLASSES`
        depth         [H, W] along the camera's axis
        normals       [H, W, 3] outward, in the camera's frame
        edges         [H, W] 1 where the pixel to the right or below shows another face
        saliency      [H, W] 1 on the object with the largest center-weighted area
        objects       boxes [8, 4] and classes [8] of the visible objects, the kinds of `KINDS`
        centers       [4, 3] (y, x, visible) of the center of the most visible object of each kind
        kinds         [4] 1 for each kind with a visible object
        counts        [4] number of visible objects of each kind
        light         [3] unit direction to the lamp from the floor 3 m ahead
        room          one of `mtljax.data.scenes.ROOM_TYPES`
        image         [H, W, 3] the image without sensor noise

    An object is visible if it covers at least 1/400 of the image.

    Args:
      size: Height and width in pixels, 32 ... 512.
      train, validation, test: Number of these images.
      seed: Seed of all scenes.
    """
    if not SMALLEST <= size <= LARGEST:
        raise ValueError(f"source scenes: size must be in {SMALLEST}..{LARGEST}, not {size}")
    if seed < 0:
        raise ValueError(f"source scenes: seed must be >= 0, not {seed}")
    counts = {"train": train, "validation": validation, "test": test}
    for name, count in counts.items():
        if not 1 <= count < 2**31:
            raise ValueError(f"source scenes: {name} must be >= 1 and < 2^31, not {count}")
    splits = {
        name: RenderedSplit(seed=seed, part=part, count=count, size=size)
        for part, (name, count) in enumerate(counts.items())
    }
    return Source(
        train=splits["train"],
        validation=splits["validation"],
        test=splits["test"],
        mean=MEAN,
        std=STD,
        low=0.0,
        high=255.0,
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class RenderedSplit:
    """Split of scenes rendered on access; no image is stored."""

    seed: int
    """Seed of the scenes."""
    part: int
    """Index of the split."""
    count: int
    """Number of images."""
    size: int
    """Height and width of an image."""

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Example:
        return jax.tree.map(lambda x: x[0], self.take(np.asarray([index])))

    def take(self, rows: Int[np.ndarray, " n"]) -> Batch:
        """Returns the images at `rows`, in their order, as a batch of NumPy arrays."""
        rows = np.asarray(rows)
        outside = (rows < 0) | (rows >= self.count)
        if outside.any():
            raise IndexError(f"image {rows[outside][0]} of {self.count}")
        pixels = _CPU_PIXELS if jax.default_backend() == "cpu" else _ACCELERATOR_PIXELS
        # A constant chunk size: one program, so an image does not depend on its batch.
        chunk = max(1, pixels // self.size**2)
        padded = np.append(rows, np.repeat(rows[-1:], -len(rows) % chunk))
        chunks = padded.reshape(-1, chunk)
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            batches = list(with_progress(pool.map(self._render, chunks), len(chunks)))
        batch = jax.tree.map(lambda *leaves: np.concatenate(leaves)[: len(rows)], *batches)
        return {**batch, "present": {name: np.ones(len(rows), bool) for name in batch["labels"]}}

    def _render(self, rows: Int[np.ndarray, " n"]) -> Batch:
        return jax.device_get(render(_keys(self.seed, self.part, rows), self.size))


@functools.partial(jax.jit, static_argnums=(0, 1))
def _keys(seed: int, part: int, rows: Int[Array, " n"]) -> Array:
    key = jax.random.fold_in(jax.random.key(seed), part)
    return jax.vmap(functools.partial(jax.random.fold_in, key))(rows.astype(jnp.uint32))


def with_progress(items: Iterable[Item], count: int) -> Iterator[Item]:
    """Iterates over items; on a terminal, shows a progress bar if that will take long."""
    items, start, done = iter(items), time.perf_counter(), 0
    for item in items:
        done += 1
        yield item
        expected = (time.perf_counter() - start) * count / done
        if done > 1 and expected > _PROGRESS_SECONDS:
            break
    console = Console(stderr=True)
    hidden = not can_show_bar(console)
    bar = functools.partial(track, console=console, transient=True, disable=hidden)
    yield from bar(items, "rendering scenes", total=count, completed=done)
