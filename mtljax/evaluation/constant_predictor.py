"""What can be said without looking: the constant outputs that a network must be better than."""

from collections.abc import Sequence

import jax
import numpy as np
from jaxtyping import Int

from mtljax.data.base import Arrays, Split
from mtljax.data.pipeline import read
from mtljax.tasks import Task

EXAMPLES = 1024
"""Most that are read of what is not in memory: a mean of so many is off by 3 % of the spread."""
BYTES = 2**28
"""Most memory for labels."""


def constants(tasks: Sequence[Task], train: Split, batch_size: int) -> dict[str, np.ndarray]:
    """{task: its `constant`}, without the tasks that have none or no label.

    Args:
      tasks: Whose constants.
      train: All of it counts if it is in memory, otherwise `EXAMPLES` examples picked by chance,
        always the same ones; and never more than have their labels in `BYTES`.
      batch_size: How many to read at once.
    """
    example = train[0]
    wanted = {task.name: example["labels"][task.name] for task in tasks}
    rows = _rows(train, sum(np.asarray(x).nbytes for x in jax.tree.leaves(wanted)))
    parts = []
    for start in range(0, len(rows), batch_size):
        batch = read(train, rows[start : start + batch_size])
        parts.append(
            [{name: batch[part][name] for name in wanted} for part in ("labels", "present")]
        )
    labels, present = jax.tree.map(lambda *x: np.concatenate(x), *jax.device_get(parts))
    found = {}
    for task in tasks:
        known = np.asarray(present[task.name])
        if known.any():
            own = jax.tree.map(lambda x, known=known: x[known], labels[task.name])
            found[task.name] = task.constant(own, example["image"].shape[:2])
    return {name: output for name, output in found.items() if output is not None}


def _rows(train: Split, bytes_each: int) -> Int[np.ndarray, " n"]:
    most = len(train) if isinstance(train, Arrays) else EXAMPLES
    count = min(most, max(1, BYTES // max(bytes_each, 1)))
    if len(train) <= count:
        return np.arange(len(train))
    return np.sort(np.random.default_rng(0).choice(len(train), count, replace=False))
