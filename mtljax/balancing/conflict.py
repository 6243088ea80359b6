"""Gradient surgery: what to do where task gradients point against each other."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, PyTree

from mtljax.balancing.base import Balancer, Combined, Needs, Signals, State, stateless, with_spec


@with_spec
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

    def combine(signals: Signals, state: State, key: Array) -> Combined:
        gram, present = signals.gramian, signals.present
        num_tasks = gram.shape[0]
        square = jnp.diagonal(gram)
        rows = jnp.arange(num_tasks)

        def project(carry, others):
            # one j for every task i at once; `inner` is <projected gradient of i, g_j> for all j
            coefficients, inner = carry
            found = inner[rows, others]
            conflict = (found < 0) & (square[others] > 0) & (others != rows)
            amount = jnp.where(conflict, found / jnp.where(conflict, square[others], 1.0), 0.0)
            chosen = rows[None, :] == others[:, None]
            coefficients = coefficients - amount[:, None] * chosen
            return (coefficients, inner - amount[:, None] * gram[others]), None

        start = jnp.eye(num_tasks), gram
        coefficients = jax.lax.scan(project, start, _orders(key, num_tasks))[0][0]
        return jnp.where(present, (coefficients * present[:, None]).sum(0), 0.0), state

    return Balancer(init=stateless, combine=combine, needs=Needs.GRAMIAN)


@with_spec
def gradvac(beta: float = 0.01) -> Balancer:
    """Gradient vaccine: each gradient is turned until its cosine to the others is as usual.

    For every task i, in a random order of the other tasks j: where the cosine phi of i's (turned)
    gradient and g_j is below its running mean m_ij, g_j is added to i's with factor
    |g_i| (m sqrt(1 - phi^2) - phi sqrt(1 - m^2)) / (|g_j| sqrt(1 - m^2)), which makes it m. Then
    m_ij moves towards phi by `beta`. PCGrad is m = 0.

    Convention: the sum over tasks; one cosine for all shared parameters (the paper's whole-model
    granularity); running means start from 0; the heads receive their own loss.

    Args:
      beta: Of the running mean: the paper's 0.01; LibMTL and TorchJD have 0.5.

    References:
      Wang et al., 2021, arXiv:2010.05874
    """
    if not 0 <= beta <= 1:
        raise ValueError(f"beta must be in [0, 1], not {beta}")

    def init(num_tasks: int, shared: PyTree) -> State:
        return {"cosines": jnp.zeros((num_tasks, num_tasks))}

    def combine(signals: Signals, state: State, key: Array) -> Combined:
        gram, present = signals.gramian, signals.present
        num_tasks = gram.shape[0]
        norms = jnp.sqrt(jnp.diagonal(gram))
        rows = jnp.arange(num_tasks)
        sine = lambda cosine: jnp.sqrt(jnp.maximum(1 - cosine**2, 1e-12))

        def turn(carry, others):
            coefficients, inner, usual = carry
            own = jnp.sqrt(jnp.maximum(jnp.sum(coefficients * inner, axis=1), 0.0))
            valid = (others != rows) & present & present[others]
            valid &= (own > 0) & (norms[others] > 0)
            safe = lambda values: jnp.where(valid, values, 1.0)
            cosine = inner[rows, others] / safe(own) / safe(norms[others])
            cosine = jnp.clip(jnp.where(valid, cosine, 0.0), -1.0, 1.0)
            mean = usual[rows, others]
            factor = (mean * sine(cosine) - cosine * sine(mean)) / sine(mean)
            factor = factor * own / safe(norms[others])
            factor = jnp.where(valid & (cosine < mean), factor, 0.0)
            chosen = rows[None, :] == others[:, None]
            moved = jnp.where(valid, beta * (cosine - mean), 0.0)
            return (
                coefficients + factor[:, None] * chosen,
                inner + factor[:, None] * gram[others],
                usual + moved[:, None] * chosen,
            ), None

        start = jnp.eye(num_tasks), gram, state["cosines"]
        (coefficients, _, usual), _ = jax.lax.scan(turn, start, _orders(key, num_tasks))
        weights = jnp.where(present, (coefficients * present[:, None]).sum(0), 0.0)
        return weights, {"cosines": usual}

    return Balancer(init=init, combine=combine, needs=Needs.GRAMIAN)


@with_spec
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

    def combine(signals: Signals, state: State, key: Array) -> Combined:
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


def _orders(key: jax.Array, num_tasks: int) -> jax.Array:
    """[step, task]: column i is a random order in which task i meets the others."""
    draws = jax.random.uniform(key, (num_tasks, num_tasks))
    return jnp.argsort(draws, axis=0)
