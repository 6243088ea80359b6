"""Gradient surgery: what to do where task gradients point against each other."""

import jax
import jax.numpy as jnp

from mtljax.balancing.base import Balancer, Needs, stateless


def pcgrad() -> Balancer:
    """Projecting conflicting gradients: each gradient loses its part against the others.

    For every task i, in a random order of the other tasks j: where the projected gradient of i and
    the original gradient of j conflict (negative inner product), i's is projected on the plane
    normal to g_j. The update is the sum of the projected gradients. All of it happens in the
    coefficients of the gradients, so only the Gramian is read.

    Convention: the sum over tasks, a fresh order per task and step; the heads receive their own
    loss.

    References:
      Yu et al., 2020, arXiv:2001.06782
    """

    def combine(signals, state, key):
        gram = signals.gramian
        num_tasks = gram.shape[0]
        square = jnp.diagonal(gram)

        def project(i, key):
            def against(coefficients, j):
                inner = coefficients @ gram[j]
                conflict = (inner < 0) & (square[j] > 0) & (j != i)
                amount = jnp.where(conflict, inner / jnp.where(square[j] > 0, square[j], 1.0), 0.0)
                return coefficients.at[j].add(-amount), None

            order = jax.random.permutation(key, num_tasks)
            start = jax.nn.one_hot(i, num_tasks)
            return jax.lax.scan(against, start, order)[0]

        rows = jax.vmap(project)(jnp.arange(num_tasks), jax.random.split(key, num_tasks))
        weights = (rows * signals.present[:, None]).sum(0)
        return jnp.where(signals.present, weights, 0.0), state

    return Balancer(init=stateless, combine=combine, needs=Needs.GRAMIAN)


def graddrop(leak: float = 0.0) -> Balancer:
    """Gradient sign dropout: each coordinate keeps the gradients of one sign, drawn at random.

    With purity p = (1 + sum_t g_t / sum_t |g_t|) / 2 at a coordinate, the positive gradients are
    kept with probability p, else the negative ones. Coordinates are drawn independently.

    Convention: the sum of what is kept; the heads receive their own loss.

    Args:
      leak: Share of every gradient that is let through untouched, in [0, 1].

    References:
      Chen et al., 2020, arXiv:2010.06808
    """
    if not 0 <= leak <= 1:
        raise ValueError(f"leak must be in [0, 1], not {leak}")

    def combine(signals, state, key):
        leaves, tree = jax.tree.flatten(signals.jacobian)

        def of(rows, key):
            magnitude = jnp.abs(rows).sum(0)
            purity = (1 + rows.sum(0) / jnp.where(magnitude > 0, magnitude, 1.0)) / 2
            positive = purity > jax.random.uniform(key, purity.shape)
            kept = jnp.where(positive, rows > 0, rows < 0)
            return ((leak + (1 - leak) * kept) * rows).sum(0)

        keys = jax.random.split(key, len(leaves))
        return tree.unflatten([of(*pair) for pair in zip(leaves, keys, strict=True)]), state

    return Balancer(init=stateless, combine=combine, needs=Needs.JACOBIAN)
