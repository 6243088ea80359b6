"""Aggregation rules of robust distributed learning, which ignore outliers among the gradients."""

import jax
import jax.numpy as jnp
from jaxtyping import Array

from mtljax.balancing import base


@base.with_spec
def krum(outliers: int = 0, selected: int = 1, squared: bool = True) -> base.Balancer:
    """(Multi-)Krum: mean of the gradients closest to their nearest neighbors.

    Task t's score is the sum of the squared distances of g_t to its T - outliers - 2 nearest
    neighbors; the update is the mean of the `selected` gradients with the smallest scores.

    Convention: the paper requires T >= 2 outliers + 3; here at least one neighbor is counted.

    Args:
      outliers: Number of gradients that may be arbitrary.
      selected: Number of gradients to average, at most the number of present tasks.
      squared: False sums the distances, not their squares, as in TorchJD.

    References:
      Blanchard et al., 2017, arXiv:1703.02757
    """
    if outliers < 0 or selected < 1:
        raise ValueError(f"needs outliers >= 0 and selected >= 1, not {outliers}, {selected}")

    def combine(signals: base.Signals, state: base.State, key: Array) -> base.Combined:
        present = signals.present
        gram = signals.gramian / jnp.maximum(jnp.max(jnp.diagonal(signals.gramian)), base.TINY)
        size, count = gram.shape[0], present.sum()
        square = jnp.diagonal(gram)
        distance = jnp.maximum(square[:, None] + square[None, :] - 2 * gram, 0.0)
        distance = distance if squared else jnp.sqrt(distance)
        near = present[None, :] & ~jnp.eye(size, dtype=bool)
        neighbors = jnp.minimum(jnp.maximum(count - outliers - 2, 1), count - 1)
        for number in range(outliers + 1):  # drops the farthest
            farthest = jnp.argmax(jnp.where(near, distance, -jnp.inf), axis=1)
            is_enough = number >= count - 1 - neighbors
            near &= (jnp.arange(size)[None, :] != farthest[:, None]) | is_enough
        score = jnp.where(near, distance, 0.0).sum(1)
        best = present & (_rank(jnp.where(present, score, jnp.inf)) < selected)
        return best / jnp.maximum(best.sum(), 1).astype(jnp.float32), state

    return base.Balancer(init=base.stateless, combine=combine, needs=base.Needs.GRAMIAN)


@base.with_spec
def trimmed_mean(trim: int = 1) -> base.Balancer:
    """Trimmed mean: mean without the largest and smallest values at each coordinate.

    Convention: the mean; with fewer than 2 trim + 1 present tasks, at least one value remains.

    Args:
      trim: Number of values to drop at either end.

    References:
      Yin et al., 2018, arXiv:1803.01498
    """
    if trim < 0:
        raise ValueError(f"trim must be >= 0, not {trim}")

    def combine(signals: base.Signals, state: base.State, key: Array) -> base.Combined:
        present = signals.present
        count = present.sum()
        drop = jnp.maximum(jnp.minimum(trim, (count - 1) // 2), 0)

        def trimmed(rows: Array) -> Array:
            index = jnp.arange(rows.shape[0]).reshape(-1, *[1] * (rows.ndim - 1))
            remaining = jnp.broadcast_to(present[index], rows.shape)
            for number in range(trim):  # much faster than sorting on CPU
                for values in (rows, -rows):
                    largest = jnp.argmax(jnp.where(remaining, values, -jnp.inf), axis=0)
                    remaining &= (index != largest) | (number >= drop)
            total = jnp.where(remaining, rows, 0.0).sum(0)
            return total / jnp.maximum(count - 2 * drop, 1).astype(rows.dtype)

        return jax.tree.map(trimmed, signals.jacobian), state

    return base.Balancer(init=base.stateless, combine=combine, needs=base.Needs.JACOBIAN)


def _rank(values: Array) -> Array:
    """Rank of each entry in ascending order; ties in order of index."""
    index, other = jnp.arange(values.shape[0]), values[None, :]
    tied_before = (other == values[:, None]) & (index[None, :] < index[:, None])
    return ((other < values[:, None]) | tied_before).sum(1)
