"""Rendered indoor scenes: as many images as anybody wants, and exact labels of many kinds."""

import dataclasses
import functools
import os
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int
from rich.console import Console
from rich.progress import track

from mtljax.data.base import Source
from mtljax.data.scenes import render

SMALLEST, LARGEST = 32, 512
MEAN, STD = (129.6, 126.1, 120.0), (44.4, 43.3, 41.8)
"""Of red, green and blue over many images; the same at any size and for any seed."""
_PIXELS = {"cpu": 4 * 64**2}
_PIXELS_ELSEWHERE = 128 * 64**2
"""Rendered at once. On CPUs few, so that what is between the steps stays in the cache."""
_WORTH_A_BAR = 2.0
"""Seconds from which on progress is shown."""


def scenes(
    size: int = 64, train: int = 4096, validation: int = 512, test: int = 512, seed: int = 0
) -> Source:
    """Rooms with solids in them, ray cast: 8-bit RGB images and exact labels of twelve kinds.

    Rooms, cameras, lights, noise, and the pose, size, colour and pattern of everything are drawn at
    random, and what a thing looks like says nothing about what it is. Image i of a split depends on
    (seed, split, i) alone: nothing is stored, and no two splits share an image.

    Labels, all from what is seen at the pixels' middles, in metres, the camera's x to the right, y
    up and z back:

        segmentation  [H, W] one of `mtljax.data.scenes.CLASSES`
        depth         [H, W] along the camera's axis
        normals       [H, W, 3] outward, in the camera's frame
        edges         [H, W] 1 where the pixel to the right or below shows another face
        saliency      [H, W] 1 on the object that takes up most of the middle of the image
        objects       boxes [8, 4] and classes [8] of the objects seen, the kinds of `KINDS`
        centers       [4, 3] (y, x, visible) of the middle of the most visible object of each kind
        kinds         [4] 1 for each kind of which an object is seen
        counts        [4] how many objects of each kind are seen
        light         [3] direction to the lamp, of length 1, from the floor 3 m ahead
        room          one of `mtljax.data.scenes.ROOM_TYPES`
        image         [H, W, 3] the image without the sensor's noise

    An object is seen if it takes up 1/400 of the image or more.

    Args:
      size: Height and width in pixels, 32 ... 512.
      train, validation, test: How many images each split has.
      seed: Of another world.

    Raises:
      ValueError: A number that is not possible.
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
        name: Rendered(seed=seed, part=part, count=count, size=size)
        for part, (name, count) in enumerate(counts.items())
    }
    return Source(**splits, mean=MEAN, std=STD, low=0.0, high=255.0)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Rendered:
    """One split of rendered scenes: random access, nothing kept."""

    seed: int
    part: int
    """Which split."""
    count: int
    """How many images it has."""
    size: int
    """Height and width of an image."""

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> dict[str, Any]:
        return jax.tree.map(lambda x: x[0], self.take(np.asarray([index])))

    def take(self, rows: Int[np.ndarray, " n"]) -> dict[str, Any]:
        """The images at `rows`, in their order, as a batch in NumPy arrays."""
        rows = np.asarray(rows)
        outside = (rows < 0) | (rows >= self.count)
        if outside.any():
            raise IndexError(f"image {rows[outside][0]} of {self.count}")
        budget = _PIXELS.get(jax.default_backend(), _PIXELS_ELSEWHERE)
        # Always as many: one program, in which an image comes out the same in any company.
        chunk = max(1, budget // self.size**2)
        padded = np.append(rows, np.repeat(rows[-1:], -len(rows) % chunk))
        chunks = padded.reshape(-1, chunk)
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            done = list(with_progress(pool.map(self._render, chunks), len(chunks)))
        batch = jax.tree.map(lambda *parts: np.concatenate(parts)[: len(rows)], *done)
        return {**batch, "present": {name: np.ones(len(rows), bool) for name in batch["labels"]}}

    def _render(self, rows: Int[np.ndarray, " n"]) -> dict[str, Any]:
        return jax.device_get(render(_keys(self.seed, self.part, rows), self.size))


@functools.partial(jax.jit, static_argnums=(0, 1))
def _keys(seed: int, part: int, rows: Int[Array, " n"]) -> Array:
    key = jax.random.fold_in(jax.random.key(seed), part)
    return jax.vmap(functools.partial(jax.random.fold_in, key))(rows.astype(jnp.uint32))


def with_progress(items: Iterable[Any], count: int) -> Iterator[Any]:
    """The same items; on a terminal with a bar, if the first ones say that it will take long."""
    items, start, given = iter(items), time.perf_counter(), 0
    for item in items:
        given += 1
        yield item
        expected = (time.perf_counter() - start) * count / given
        if given > 1 and expected > _WORTH_A_BAR:
            break
    console = Console(stderr=True)
    yield from track(
        items,
        "rendering scenes",
        total=count,
        completed=given,
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )
