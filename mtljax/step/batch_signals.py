"""Sums over one batch, from which the signals of a balancer are computed."""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from mtljax.models.partition import Flat


class BatchSignals(NamedTuple):
    """Signals of one batch, summed over its microbatches and not yet divided by counts."""

    sums: Float[Array, " R"]
    """Sum of the losses of each row."""
    counts: Float[Array, " R"]
    """Number of labels of each row."""
    rows: PyTree[Float[Array, "R ..."]] | None = None
    """Gradient of each sum with respect to the shared parameters or the representation."""
    gramian: Float[Array, "R R"] | None = None
    """Gramian of the rows, if they are not stored."""
    specific: Flat | None = None
    """Gradient of the sum over all rows with respect to the task-specific parameters, if the rows
    are those of parameters."""


def reciprocal(counts: Float[Array, " R"]) -> Float[Array, " R"]:
    """1 / count; 0 for a count of 0."""
    return jnp.where(counts > 0, 1.0 / jnp.where(counts > 0, counts, 1.0), 0.0)
