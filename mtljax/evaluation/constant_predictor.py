"""Constant-predictor baseline: the best output for every example that ignores the image."""

from collections.abc import Sequence

import jax
import numpy as np
from jaxtyping import Int, PyTree

from mtljax.data.base import Arrays, Split
from mtljax.data.pipeline import read_batch
from mtljax.tasks import Task

MAX_EXAMPLES = 1024
"""Examples read of a split that is not in memory: the standard error of a mean is 3 % of the
standard deviation."""
MAX_BYTES = 2**28
"""Maximum memory for labels."""


def constant_outputs(
    tasks: Sequence[Task], train: Split, batch_size: int
) -> dict[str, PyTree[np.ndarray]]:
    """Computes each task's best constant output on the training labels.

    Args:
      tasks: The tasks.
      train: Training split. Only `MAX_EXAMPLES` random examples are read, always the same ones, if
        it is not in memory, and no more than have their labels in `MAX_BYTES`.
      batch_size: Number of examples read at once.

    Returns:
      {task: output}, without tasks that define no constant output or have no labels.
    """
    example = train[0]
    labels = {task.name: example["labels"][task.name] for task in tasks}
    rows = _rows(train, sum(np.asarray(x).nbytes for x in jax.tree.leaves(labels)))
    parts = []
    for start in range(0, len(rows), batch_size):
        batch = read_batch(train, rows[start : start + batch_size])
        parts.append(
            [{name: batch[part][name] for name in labels} for part in ("labels", "present")]
        )
    labels, present = jax.tree.map(lambda *x: np.concatenate(x), *jax.device_get(parts))
    outputs = {}
    for task in tasks:
        index = np.flatnonzero(present[task.name])
        if len(index):
            task_labels = jax.tree.map(lambda x, index=index: x[index], labels[task.name])
            outputs[task.name] = task.constant_output(task_labels, example["image"].shape[:2])
    return {name: output for name, output in outputs.items() if output is not None}


def _rows(train: Split, bytes_per_example: int) -> Int[np.ndarray, " n"]:
    limit = len(train) if isinstance(train, Arrays) else MAX_EXAMPLES
    count = min(limit, max(1, MAX_BYTES // max(bytes_per_example, 1)))
    if len(train) <= count:
        return np.arange(len(train))
    return np.sort(np.random.default_rng(0).choice(len(train), count, replace=False))
