"""Aggregation rules of robust distributed learning: some gradients may be outliers."""

import jax
import jax.numpy as jnp
from jaxtyping import Array

from mtljax.balancing.base import (
    TINY,
    Balancer,
    Combined,
    Needs,
    Signals,
    State,
    stateless,
    with_spec,
)


@with_spec
def krum(outliers: int = 0, selected: int = 1, squared: bool = True) -> Balancer:
    """(Multi-)Krum: the gradients that lie closest to their neighbours.

    Task t's score is the sum of the squared distances of g_t to its T - outliers - 2 nearest
    others; the update is the mean of the `selected` gradients of least score.

    Convention: as in the paper, which asks for T >= 2 outliers + 3; with fewer tasks at least one
    neighbour is counted. The heads receive their own loss.

    Args:
      outliers: How many gradients may be arbitrary.
      selected: How many gradients are averaged; no more than there are present tasks.
      squared: False sums the distances themselves, as TorchJD does.

    References:
      Blanchard et al., 2017, arXiv:1703.02757
    """
    if outliers < 0 or selected < 1:
        raise ValueError(f"needs outliers >= 0 and selected >= 1, not {outliers}, {selected}")

    def combine(signals: Signals, state: State, key: Array) -> Combined:
        present = signals.present
        gram = signals.gramian / jnp.maximum(jnp.max(jnp.diagonal(signals.gramian)), TINY)
        size, count = gram.shape[0], present.sum()
        square = jnp.diagonal(gram)
        distance = jnp.maximum(square[:, None] + square[None, :] - 2 * gram, 0.0)
        distance = distance if squared else jnp.sqrt(distance)
        near = present[None, :] & ~jnp.eye(size, dtype=bool)
        neighbours = jnp.minimum(jnp.maximum(count - outliers - 2, 1), count - 1)
        for number in range(outliers + 1):  # leaves out the farthest
            farthest = jnp.argmax(jnp.where(near, distance, -jnp.inf), axis=1)
            kept = (jnp.arange(size)[None, :] != farthest[:, None]) | (
                number >= count - 1 - neighbours
            )
            near &= kept
        score = jnp.where(near, distance, 0.0).sum(1)
        best = present & (_rank(jnp.where(present, score, jnp.inf)) < selected)
        return best / jnp.maximum(best.sum(), 1).astype(jnp.float32), state

    return Balancer(init=stateless, combine=combine, needs=Needs.GRAMIAN)


@with_spec
def trimmed_mean(trim: int = 1) -> Balancer:
    """Trimmed mean: at each coordinate, the mean without the largest and the smallest values.

    Convention: the mean; where fewer than 2 trim + 1 tasks are present, as much is trimmed as
    leaves something. The heads receive their own loss.

    Args:
      trim: How many values are dropped at either end.

    References:
      Yin et al., 2018, arXiv:1803.01498
    """
    if trim < 0:
        raise ValueError(f"trim must be >= 0, not {trim}")

    def combine(signals: Signals, state: State, key: Array) -> Combined:
        present = signals.present
        count = present.sum()
        drop = jnp.maximum(jnp.minimum(trim, (count - 1) // 2), 0)

        def of(rows):
            index = jnp.arange(rows.shape[0]).reshape(-1, *[1] * (rows.ndim - 1))
            kept = jnp.broadcast_to(present[index], rows.shape)
            for number in range(trim):  # on CPU many times faster than sorting
                for values in (rows, -rows):
                    largest = jnp.argmax(jnp.where(kept, values, -jnp.inf), axis=0)
                    kept &= (index != largest) | (number >= drop)
            total = jnp.where(kept, rows, 0.0).sum(0)
            return total / jnp.maximum(count - 2 * drop, 1).astype(rows.dtype)

        return jax.tree.map(of, signals.jacobian), state

    return Balancer(init=stateless, combine=combine, needs=Needs.JACOBIAN)


def _rank(values):
    """How many entries come before each one in ascending order; ties in order of index."""
    index = jnp.arange(values.shape[0])
    before = (values[None, :] < values[:, None]) | (
        (values[None, :] == values[:, None]) & (index[None, :] < index[:, None])
    )
    return before.sum(1)
