"""Operations on task gradients that are stored as a pytree with leaves [T, ...]."""

from typing import TypeAlias

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PyTree

from mtljax.balancing import base

Rows: TypeAlias = PyTree[Float[Array, "T ..."]]
"""One row of gradients per task, for each array of the shared parameters."""


def zero_rows(num_tasks: int, shared: PyTree) -> Rows:
    """A row of zeros for each task."""
    return jax.tree.map(lambda leaf: jnp.zeros((num_tasks, *leaf.shape), leaf.dtype), shared)


def scale_rows(rows: Rows, by: Float[Array, " T"]) -> Rows:
    """Multiplies row t by `by[t]`."""
    return jax.tree.map(lambda leaf: leaf * _column(by, leaf), rows)


def move_rows(rows: Rows, target: Rows, rate: Array | float, present: Bool[Array, " T"]) -> Rows:
    """Moves the rows of present tasks towards the target by `rate`."""
    rates = jnp.where(present, rate, 0.0)
    return jax.tree.map(lambda row, new: row + _column(rates, row) * (new - row), rows, target)


def row_norms(rows: Rows) -> Float[Array, " T"]:
    """Norms of the rows, computed at unit scale, since squares of 1e30 overflow float32."""
    peak = lambda leaf: jnp.max(jnp.abs(leaf), axis=tuple(range(1, leaf.ndim)))
    scale = jnp.stack([peak(leaf) for leaf in jax.tree.leaves(rows)]).max(0)
    safe = jnp.where(scale > 0, scale, 1.0)
    return scale * jnp.sqrt(jnp.diagonal(base.gramian(scale_rows(rows, 1 / safe))))


def _column(values: Array, leaf: Array) -> Array:
    return values.reshape(-1, *[1] * (leaf.ndim - 1)).astype(leaf.dtype)
