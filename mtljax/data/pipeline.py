"""Order of the training examples, and input pipelines from a split to the device.

The order is a pure function of (seed, step): the training data is shuffled for each epoch, the
epochs are concatenated and cut into batches. Every epoch has every example exactly once. A run that
resumes at step s therefore reads the same examples as an uninterrupted one, from memory or files.
"""

import dataclasses
import functools
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import grain
import jax
import numpy as np
from absl import flags
from jaxtyping import Int, PyTree

from mtljax.data.base import Batch, Split, first_usable

READER_THREADS = 8
"""Threads that read an entire split."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class BatchSampler:
    """Indices of the examples in the batch of each step."""

    seed: int
    """Seed of the random order."""
    size: int
    """Number of examples in the split."""
    batch_size: int
    """Number of examples in a global batch."""

    def __post_init__(self) -> None:
        if self.batch_size > self.size:
            fault = f"a batch of {self.batch_size} is larger than the training data"
            advice = f"make data.batch_size at most {self.size}"
            raise ValueError(f"{fault} ({self.size} examples); {advice}")

    def batches(self, start: int, count: int) -> Int[np.ndarray, "count B"]:
        """Returns the indices of the batches of steps start ... start + count - 1."""
        position, end = start * self.batch_size, (start + count) * self.batch_size
        pieces = []
        while position < end:
            epoch, offset = divmod(position, self.size)
            length = min(end - position, self.size - offset)
            pieces.append(_permutation(self.seed, epoch, self.size)[offset : offset + length])
            position += length
        return np.concatenate(pieces).reshape(count, self.batch_size)


@functools.lru_cache(maxsize=16)  # for runs side by side; safe between grain's threads
def _permutation(seed: int, epoch: int, size: int) -> Int[np.ndarray, " size"]:
    return np.random.default_rng([seed, epoch]).permutation(size).astype(np.int32)


def stack(examples: list[PyTree]) -> PyTree:
    """Returns the examples as a batch."""
    return jax.tree.map(lambda *leaves: np.stack(leaves), *examples)


def read_batch(split: Split, rows: Int[np.ndarray, " n"]) -> PyTree:
    """Returns the examples at `rows` as a batch of NumPy arrays."""
    take = getattr(split, "take", None)
    return take(rows) if take else stack([split[int(row)] for row in rows])


def read_split(split: Split) -> Batch:
    """Returns the entire split as one batch of NumPy arrays, read by several threads."""
    rows = np.arange(len(split))
    if hasattr(split, "take"):
        return read_batch(split, rows)
    with ThreadPoolExecutor(READER_THREADS) as pool:
        return stack(list(pool.map(lambda row: split[int(row)], rows)))


def size_in_bytes(split: Split) -> int:
    """Returns the size of the entire split on a device."""
    return len(split) * sum(
        np.asarray(leaf).nbytes for leaf in jax.tree.leaves(first_usable(split))
    )


def _prefetched(batch: Callable[[int], PyTree], start: int, stop: int) -> grain.IterDataset:
    """Iterates over batch(start) ... batch(stop - 1), read ahead by threads."""
    batches = grain.MapDataset.range(start, stop).map(batch)
    return batches.to_iter_dataset(grain.ReadOptions(num_threads=4, prefetch_buffer_size=8))


def stream(
    split: Split, sampler: BatchSampler, part: slice, start: int, steps: int, workers: int = 0
) -> Iterator[PyTree]:
    """Iterates over the batches of steps start ... steps - 1, prefetched.

    Reads only this process's examples, at the positions `part` of a batch, by `workers` processes
    (started by spawn), or, if 0, by threads of this process.
    """
    dataset = _prefetched(functools.partial(_local_batch, split, sampler, part), start, steps)
    if workers:
        if not flags.FLAGS.is_parsed():  # grain's workers read absl flags, which we never parse
            flags.FLAGS.mark_as_parsed()
        dataset = dataset.mp_prefetch(grain.MultiprocessingOptions(num_workers=workers))
    return iter(dataset)


def _local_batch(split: Split, sampler: BatchSampler, part: slice, step: int) -> PyTree:
    return read_batch(split, sampler.batches(step, 1)[0, part])


def padded_batches(split: Split, batch_size: int, part: slice = slice(None)) -> Iterator[PyTree]:
    """Iterates over the split once, in order, in batches of one size; files are prefetched.

    The last batch is padded with copies of its last example, marked absent for every task.
    """
    last = len(split) - 1
    rows = lambda number: (np.arange(batch_size) + number * batch_size)[part]
    batch = lambda number: read_batch(split, np.minimum(rows(number), last))
    count = -(-len(split) // batch_size)
    has_take = hasattr(split, "take")
    batches = map(batch, range(count)) if has_take else _prefetched(batch, 0, count)
    for number, examples in enumerate(batches):
        is_real = rows(number) <= last
        present = {name: mask & is_real for name, mask in examples["present"].items()}
        yield {**examples, "present": present}
