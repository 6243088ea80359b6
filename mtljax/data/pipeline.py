"""The order of the examples, and their way from a split to the device.

The order is a pure function of (seed, step): the training data, shuffled anew each epoch, one epoch
after the other, cut into batches. No example is left out and none comes twice in an epoch. So a run
that goes on from step s reads exactly what it would have read, however the data is fed.
"""

import dataclasses
import functools
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grain
import jax
import numpy as np
from absl import flags
from jaxtyping import Int, PyTree

from mtljax.data.base import Split

READERS = 8
"""Threads that read a split that is wanted as a whole."""


class Order:
    """Which examples are in the batch of each step."""

    def __init__(self, *, seed: int, size: int, batch_size: int):
        """Args: seed; size: examples in the split; batch_size: examples in a global batch."""
        if batch_size > size:
            raise ValueError(
                f"a batch of {batch_size} is larger than the training data ({size} examples); "
                f"make data.batch_size at most {size}"
            )
        self.seed, self.size, self.batch_size = seed, size, batch_size

    def batches(self, start: int, count: int) -> Int[np.ndarray, "count B"]:
        """Indices of the batches of steps start ... start + count - 1."""
        position, end = start * self.batch_size, (start + count) * self.batch_size
        pieces = []
        while position < end:
            epoch, offset = divmod(position, self.size)
            take = min(end - position, self.size - offset)
            pieces.append(_shuffled(self.seed, epoch, self.size)[offset : offset + take])
            position += take
        return np.concatenate(pieces).reshape(count, self.batch_size)


@functools.lru_cache(maxsize=16)  # for runs side by side; safe between grain's threads
def _shuffled(seed: int, epoch: int, size: int) -> Int[np.ndarray, " size"]:
    return np.random.default_rng([seed, epoch]).permutation(size).astype(np.int32)


def stack(examples: list[PyTree]) -> PyTree:
    """Examples -> a batch."""
    return jax.tree.map(lambda *leaves: np.stack(leaves), *examples)


def read(split: Split, rows: Int[np.ndarray, " n"]) -> PyTree:
    """The examples at `rows`, as a batch in NumPy arrays."""
    take = getattr(split, "take", None)
    if take is not None:
        return take(rows)
    return stack([split[int(row)] for row in rows])


def resident(split: Split) -> dict[str, Any]:
    """The whole split as one batch of NumPy arrays, read by several threads."""
    rows = np.arange(len(split))
    if hasattr(split, "take"):
        return read(split, rows)
    with ThreadPoolExecutor(READERS) as pool:
        return stack(list(pool.map(lambda row: split[int(row)], rows)))


def size_in_bytes(split: Split) -> int:
    """What the whole split would take on a device."""
    example = split[0]
    return len(split) * sum(np.asarray(leaf).nbytes for leaf in jax.tree.leaves(example))


class _Batches(grain.sources.RandomAccessDataSource):
    """Whole batches as items, for grain to read ahead."""

    def __init__(self, split: Split, rows: Callable[[int], Int[np.ndarray, " n"]], count: int):
        self.split, self.rows, self.count = split, rows, count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, number: int) -> PyTree:
        return read(self.split, self.rows(int(number)))

    def __repr__(self) -> str:
        return f"batches of {type(self.split).__name__}"


@dataclasses.dataclass(frozen=True)
class _Part:
    """This process's examples of the batch of each step; it can be sent to worker processes."""

    order: Order
    part: slice

    def __call__(self, step: int) -> Int[np.ndarray, " n"]:
        return self.order.batches(step, 1)[0, self.part]


def _ahead(batches: grain.MapDataset) -> grain.IterDataset:
    return batches.to_iter_dataset(grain.ReadOptions(num_threads=4, prefetch_buffer_size=8))


def stream(
    split: Split, order: Order, part: slice, start: int, steps: int, workers: int = 0
) -> Iterator[PyTree]:
    """This process's part of the batches of steps start ... steps - 1, read ahead by grain.

    Args:
      split: Training data.
      order: Which examples come when.
      part: This process's examples of a batch.
      start: First step.
      steps: One past the last.
      workers: Processes that read (started by spawn); 0: threads of this one.
    """
    dataset = _ahead(grain.MapDataset.source(_Batches(split, _Part(order, part), steps))[start:])
    if workers:
        if not flags.FLAGS.is_parsed():  # grain's workers ask for flags of a program that has none
            flags.FLAGS.mark_as_parsed()
        dataset = dataset.mp_prefetch(grain.MultiprocessingOptions(num_workers=workers))
    return iter(dataset)


def padded(split: Split, batch_size: int, part: slice = slice(None)) -> Iterator[PyTree]:
    """The whole split in order, in batches of one size, once; what is in files is read ahead.

    The last batch is filled up with copies of its last example that are marked absent for every
    task, so that they count for nothing.
    """
    last = len(split) - 1
    wanted = lambda number: (np.arange(batch_size) + number * batch_size)[part]
    clipped = lambda number: np.minimum(wanted(number), last)
    count = -(-len(split) // batch_size)
    batches: Iterable[PyTree] = (read(split, clipped(number)) for number in range(count))
    if not hasattr(split, "take"):
        batches = _ahead(grain.MapDataset.source(_Batches(split, clipped, count)))
    for number, batch in enumerate(batches):
        real = wanted(number) <= last
        present = {name: known & real for name, known in batch["present"].items()}
        yield {**batch, "present": present}
