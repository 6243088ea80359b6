"""Gradient surgery and projections: methods that change conflicting task gradients."""

import functools

import jax
import jax.numpy as jnp
from jaxtyping import Array, PyTree

from mtljax.balancing import base, solvers

_surgery = functools.partial(base.Balancer, needs=base.Needs.GRAMIAN, prefers=True)


@base.with_spec
def pcgrad() -> base.Balancer:
    """PCGrad: removes from each gradient its components against the other tasks' gradients.

    For every task i, in a random order of the other tasks j: where the projected gradient of i and
    the original gradient of j conflict (negative inner product), i's is projected on the plane
    normal to g_j. The update is the sum of the projected gradients; only the Gramian is needed.

    Convention: the sum over tasks, a new order per task and step.

    References:
      Yu et al., 2020, arXiv:2001.06782
    """

    def combine(signals: base.Signals, state: base.State, key: Array) -> base.Combined:
        gram, present = signals.gramian, signals.present
        num_tasks = gram.shape[0]
        square = jnp.diagonal(gram)
        rows = jnp.arange(num_tasks)

        def project(carry: tuple, other: Array) -> tuple[tuple, None]:
            # One j per task i; `inner` is <projected gradient of i, g_j> for all j.
            coefficients, inner = carry
            product = inner[rows, other]
            conflict = (product < 0) & (square[other] > 0) & (other != rows)
            amount = jnp.where(conflict, product / jnp.where(conflict, square[other], 1.0), 0.0)
            chosen = rows[None, :] == other[:, None]
            coefficients = coefficients - amount[:, None] * chosen
            return (coefficients, inner - amount[:, None] * gram[other]), None

        start = jnp.eye(num_tasks), gram
        coefficients = jax.lax.scan(project, start, random_orders(key, num_tasks))[0][0]
        projected = base.preference(signals)[:, None] * coefficients
        return jnp.where(present, projected.sum(0), 0.0), state

    return _surgery(init=base.stateless, combine=combine)


@base.with_spec
def gradvac(beta: float = 0.01) -> base.Balancer:
    """GradVac: rotates each gradient until its cosines reach their running means.

    For every task i, in a random order of the other tasks j: if the cosine phi of i's (rotated)
    gradient and g_j is below its running mean m_ij, g_j is added to i's with factor
    |g_i| (m sqrt(1 - phi^2) - phi sqrt(1 - m^2)) / (|g_j| sqrt(1 - m^2)), so that it becomes m.
    Then m_ij moves towards phi by `beta`. PCGrad is m = 0.

    Convention: the sum over tasks; one cosine for all shared parameters; means start from 0.

    Args:
      beta: Rate of the running mean; 0.01 in the paper, 0.5 in LibMTL and TorchJD.

    References:
      Wang et al., 2021, arXiv:2010.05874
    """
    if not 0 <= beta <= 1:
        raise ValueError(f"beta must be in [0, 1], not {beta}")

    def init(num_tasks: int, shared: PyTree) -> base.State:
        return {"cosines": jnp.zeros((num_tasks, num_tasks))}

    def combine(signals: base.Signals, state: base.State, key: Array) -> base.Combined:
        gram, present = signals.gramian, signals.present
        num_tasks = gram.shape[0]
        norms = jnp.sqrt(jnp.diagonal(gram))
        rows = jnp.arange(num_tasks)
        sine = lambda cosine: jnp.sqrt(jnp.maximum(1 - cosine**2, 1e-12))

        def rotate(carry: tuple, other: Array) -> tuple[tuple, None]:
            coefficients, inner, means = carry
            norm = jnp.sqrt(jnp.maximum(jnp.sum(coefficients * inner, axis=1), 0.0))
            valid = (other != rows) & present & present[other]
            valid &= (norm > 0) & (norms[other] > 0)
            safe = lambda values: jnp.where(valid, values, 1.0)
            cosine = inner[rows, other] / safe(norm) / safe(norms[other])
            cosine = jnp.clip(jnp.where(valid, cosine, 0.0), -1.0, 1.0)
            mean = means[rows, other]
            factor = (mean * sine(cosine) - cosine * sine(mean)) / sine(mean)
            factor = factor * norm / safe(norms[other])
            factor = jnp.where(valid & (cosine < mean), factor, 0.0)
            chosen = rows[None, :] == other[:, None]
            moved = jnp.where(valid, beta * (cosine - mean), 0.0)
            return (
                coefficients + factor[:, None] * chosen,
                inner + factor[:, None] * gram[other],
                means + moved[:, None] * chosen,
            ), None

        start = jnp.eye(num_tasks), gram, state["cosines"]
        (coefficients, _, means), _ = jax.lax.scan(rotate, start, random_orders(key, num_tasks))
        weights = (base.preference(signals)[:, None] * coefficients).sum(0)
        return jnp.where(present, weights, 0.0), {"cosines": means}

    return _surgery(init=init, combine=combine)


@base.with_spec
def graddrop(leak: float = 0.0) -> base.Balancer:
    """GradDrop: keeps the gradients of one randomly drawn sign at each coordinate.

    With purity p = (1 + sum_t g_t / sum_t |g_t|) / 2 at a coordinate, only the positive gradients
    remain with probability p, else only the negative ones, independently per coordinate.

    Convention: the sum of the remaining gradients.

    Args:
      leak: Fraction of every gradient that passes unchanged, in [0, 1].

    References:
      Chen et al., 2020, arXiv:2010.06808
    """
    if not 0 <= leak <= 1:
        raise ValueError(f"leak must be in [0, 1], not {leak}")

    def combine(signals: base.Signals, state: base.State, key: Array) -> base.Combined:
        leaves, tree = jax.tree.flatten(signals.jacobian)

        def drop(rows: Array, key: Array) -> Array:
            magnitude = jnp.abs(rows).sum(0)
            purity = (1 + rows.sum(0) / jnp.where(magnitude > 0, magnitude, 1.0)) / 2
            positive = purity > jax.random.uniform(key, purity.shape)
            mask = jnp.where(positive, rows > 0, rows < 0)
            return ((leak + (1 - leak) * mask) * rows).sum(0)

        return jax.tree.unflatten(
            tree, map(drop, leaves, jax.random.split(key, len(leaves)))
        ), state

    return base.Balancer(init=base.stateless, combine=combine, needs=base.Needs.JACOBIAN)


@base.with_spec
def upgrad() -> base.Balancer:
    """UPGrad: sum of the task gradients, each projected on the dual cone.

    Each g_t is projected on the dual cone {d: <g_s, d> >= 0 for all s}; the update is the sum of
    the projections, so no task's loss rises to first order.

    Convention: the sum, as in LibMTL; the paper and TorchJD use the mean, T times less.

    References:
      Quinton and Rey, 2024, arXiv:2406.16232
    """

    def combine(signals: base.Signals, state: base.State, key: Array) -> base.Combined:
        each = jnp.diag(base.preference(signals))
        solve = jax.vmap(solvers.dual_cone, in_axes=(None, 0, None))
        return solve(signals.gramian, each, signals.present).sum(0), state

    return _surgery(init=base.stateless, combine=combine)


@base.with_spec
def dualproj() -> base.Balancer:
    """DualProj: projection of the summed gradients on the dual cone.

    The update is the projection of sum_t g_t on the dual cone {d: <g_s, d> >= 0 for all s}.

    Convention: the sum; TorchJD projects the mean, T times less.

    References:
      Lopez-Paz and Ranzato, 2017, arXiv:1706.08840; Quinton and Rey, 2024, arXiv:2406.16232
    """

    def combine(signals: base.Signals, state: base.State, key: Array) -> base.Combined:
        weights = base.preference(signals)
        return solvers.dual_cone(signals.gramian, weights, signals.present), state

    return _surgery(init=base.stateless, combine=combine)


def random_orders(key: jax.Array, num_tasks: int) -> jax.Array:
    """[step, task]: column i is the random order of tasks j for task i."""
    return jnp.argsort(jax.random.uniform(key, (num_tasks, num_tasks)), axis=0)
