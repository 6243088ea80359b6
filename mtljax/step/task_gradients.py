"""Gradient of each task, with respect to the shared parameters or to the representation."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from mtljax.step.objective import Forward, Level, Pullback


def task_gradients(
    forward: Forward, level: Level, pullback: Pullback = "auto"
) -> PyTree[Float[Array, "R ..."]]:
    """Returns the gradient of the *sum* of the losses of each row, not yet divided by counts."""
    count = forward.sums.shape[0]
    if isinstance(pullback, int):
        size = pullback
    else:
        size = {"auto": rows_per_pullback(count, level, forward.devices), "vmap": count, "loop": 1}[
            pullback
        ]
    starts = range(0, count, size)
    chunks = [forward.pullback_rows(start, min(start + size, count)) for start in starts]
    rows = [x.shared if level == "parameters" else x.representation for x in chunks]
    return jax.tree.map(lambda *leaves: jnp.concatenate(leaves), *rows)


def rows_per_pullback(rows: int, level: Level, devices: int = 1) -> int:
    """Returns the number of rows of the Jacobian to compute at once.

    One row of gradients of the representation visits its head only. For parameters, one row at
    a time is fastest on CPU (see `benchmarks/pullback.py`): its arrays fit into the cache. A single
    accelerator computes all rows at once. On several, this would make XLA gather the gradients of
    all maps of convolutions, since it cannot partition the grouped convolutions of several rows.
    """
    is_single = level == "features" or jax.default_backend() == "cpu" or devices > 1
    return 1 if is_single else rows
