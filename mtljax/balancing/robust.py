"""Aggregation rules of robust distributed learning: some gradients may be outliers."""

import jax
import jax.numpy as jnp

from mtljax.balancing.base import TINY, Balancer, Needs, stateless


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

    def combine(signals, state, key):
        del key
        present = signals.present
        gram = signals.gramian / jnp.maximum(jnp.max(jnp.diagonal(signals.gramian)), TINY)
        size, count = gram.shape[0], present.sum()
        square = jnp.diagonal(gram)
        distance = jnp.maximum(square[:, None] + square[None, :] - 2 * gram, 0.0)
        distance = distance if squared else jnp.sqrt(distance)
        others = present[None, :] & ~jnp.eye(size, dtype=bool)
        nearest = jnp.sort(jnp.where(others, distance, jnp.inf), axis=1)
        neighbours = jnp.minimum(jnp.maximum(count - outliers - 2, 1), count - 1)
        counted = jnp.arange(size)[None, :] < neighbours
        score = jnp.where(counted, nearest, 0.0).sum(1)
        rank = jnp.argsort(jnp.argsort(jnp.where(present, score, jnp.inf)))
        best = present & (rank < selected)
        return best / jnp.maximum(best.sum(), 1).astype(jnp.float32), state

    return Balancer(init=stateless, combine=combine, needs=Needs.GRAMIAN)


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

    def combine(signals, state, key):
        del key
        present = signals.present
        count = present.sum()
        drop = jnp.maximum(jnp.minimum(trim, (count - 1) // 2), 0)
        rank = jnp.arange(present.shape[0])
        kept = (rank >= drop) & (rank < count - drop)

        def of(rows):
            column = lambda mask: mask.reshape(-1, *[1] * (rows.ndim - 1))
            ordered = jnp.sort(jnp.where(column(present), rows, jnp.inf), axis=0)
            total = jnp.where(column(kept), ordered, 0.0).sum(0)
            return total / jnp.maximum(count - 2 * drop, 1).astype(rows.dtype)

        return jax.tree.map(of, signals.jacobian), state

    return Balancer(init=stateless, combine=combine, needs=Needs.JACOBIAN)
