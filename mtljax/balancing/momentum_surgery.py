"""Gradient surgery that reads running means of the gradients."""

import functools

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PyTree

from mtljax.balancing import base
from mtljax.balancing.conflict import random_orders
from mtljax.balancing.rows import move_rows, row_norms, scale_rows, zero_rows

_surgery = functools.partial(base.Balancer, needs=base.Needs.JACOBIAN, parameters_only=True)


@base.with_spec
def sam_gs(momentum: float = 0.9, beta: float = 0.99, threshold: float = 0.1) -> base.Balancer:
    """SAM-GS: gradients of equal norm if their norms differ, else gradients scaled by momentum.

    The similarity s is the mean of 2 |g_i| |g_j| / (|g_i|^2 + |g_j|^2) over the pairs of tasks. At
    step k (from 1), m_t <- momentum m_t + (1 - momentum) g_t and v <- beta v + (1 - beta) (1 - s)^2
    + 1e-8, from 0. If s < threshold, the update is the sum of the gradients, each scaled to the
    mean of their norms. Otherwise it is sum_t g_t |m_t| / (1 - momentum^k) / sqrt(v / (1 - beta^k))
    in each coordinate.

    Convention: as in the authors' code for supervised learning, without its factor T on the sum.
    Their code for reinforcement learning scales to equal norms if any pair is below the threshold.
    A single task keeps its gradient. An absent task's mean does not change.

    Args:
      momentum: Decay of the running means of the gradients.
      beta: Decay of the running mean of (1 - s)^2.
      threshold: The code's gamma, 0.1 to 0.9 in its configurations.

    References:
      Borsani et al., 2025, arXiv:2506.06130
    """
    if not (0 <= momentum < 1 and 0 <= beta < 1):
        raise ValueError(f"momentum and beta must be in [0, 1), not {momentum}, {beta}")

    def init(num_tasks: int, shared: PyTree) -> base.State:
        zeros = {"variance": jnp.zeros(()), "steps": jnp.zeros((), jnp.int32)}
        return {"rows": zero_rows(num_tasks, shared), "seen": jnp.zeros(num_tasks), **zeros}

    def combine(signals: base.Signals, state: base.State, key: Array) -> base.Combined:
        jacobian, present = signals.jacobian, signals.present
        norms = row_norms(jacobian)
        similarity = _similarity(norms, present)
        several = present.sum() > 1
        rows = move_rows(state["rows"], jacobian, 1 - momentum, present)
        seen, steps = state["seen"] + present, state["steps"] + several
        variance = beta * state["variance"] + (1 - beta) * (1 - similarity) ** 2 + 1e-8
        variance = jnp.where(several, variance, state["variance"])

        mean_norm = base.mean_present(norms, present)
        to_equal = jnp.where(norms > 0, mean_norm / jnp.where(norms > 0, norms, 1.0), 0.0)
        equal = base.combine_rows(to_equal, jacobian)
        spread = jnp.sqrt(variance / (1 - beta ** jnp.maximum(steps, 1)))
        by_momentum = 1 / (1 - momentum ** jnp.maximum(seen, 1)) / jnp.where(several, spread, 1.0)
        size = scale_rows(jax.tree.map(jnp.abs, rows), by_momentum)
        modulated = jax.tree.map(lambda g, m: (g * m).sum(0), jacobian, size)
        is_equal = (similarity < threshold) | ~several
        direction = jax.tree.map(lambda a, b: jnp.where(is_equal, a, b), equal, modulated)
        return direction, {"rows": rows, "seen": seen, "variance": variance, "steps": steps}

    return _surgery(init=init, combine=combine)


def _similarity(norms: Float[Array, " T"], present: Bool[Array, " T"]) -> Float[Array, ""]:
    """Mean similarity of the norms of all pairs of present tasks; 1 if there is no pair."""
    lower = jnp.minimum(norms[:, None], norms[None, :])
    upper = jnp.maximum(norms[:, None], norms[None, :])
    ratio = jnp.where(upper > 0, lower / jnp.where(upper > 0, upper, 1.0), 1.0)
    is_pair = jnp.triu(present[:, None] & present[None, :], k=1)
    total = jnp.where(is_pair, 2 * ratio / (1 + ratio**2), 0.0).sum()
    return jnp.where(is_pair.any(), total / jnp.maximum(is_pair.sum(), 1), 1.0)


@base.with_spec
def mocograd(calibration: float = 0.1, momentum: float = 0.9) -> base.Balancer:
    """MoCoGrad: adds the momentum of a conflicting task to a gradient.

    Let M be the running mean of the updates, from 0, and m_j = momentum M + (1 - momentum) g_j. For
    every task i, in a random order of the other tasks j: where the calibrated gradient of i and the
    original g_j conflict (negative inner product), calibration |g_j| / |m_j| m_j is added to i's.
    The update is the sum of the calibrated gradients. The first update is the plain sum.

    Convention: as in the authors' code, where M is the first moment of the optimizer, Adam. Here it
    is stored by the balancer, so that any optimizer can follow. The paper's text was not available.

    Args:
      calibration: The code's lambda. The code has no default; 0.1 is not the authors' choice.
      momentum: Decay of M; Adam's default.

    References:
      Chai et al., 2024, "Towards task-conflicts momentum-calibrated approach for multi-task
      learning", ICDE
    """
    if calibration < 0 or not 0 <= momentum < 1:
        raise ValueError(
            f"needs calibration >= 0 and momentum in [0, 1), not {calibration}, {momentum}"
        )

    def init(num_tasks: int, shared: PyTree) -> base.State:
        mean = jax.tree.map(jnp.zeros_like, shared)
        return {"mean": mean, "steps": jnp.zeros((), jnp.int32)}

    def combine(signals: base.Signals, state: base.State, key: Array) -> base.Combined:
        jacobian, mean = signals.jacobian, state["mean"]
        gram, with_mean, square = _products(jacobian, mean)
        moments = (1 - momentum) * gram + momentum * with_mean[None, :]  # <m_j, g_k>
        squares = momentum**2 * square + (1 - momentum) * (
            (1 - momentum) * jnp.diagonal(gram) + 2 * momentum * with_mean
        )
        lengths = jnp.sqrt(jnp.maximum(squares, 0.0))
        norms = jnp.sqrt(jnp.diagonal(gram))
        amounts = jnp.where(lengths > 0, norms / jnp.where(lengths > 0, lengths, 1.0), 0.0)
        num_tasks = gram.shape[0]
        tasks = jnp.arange(num_tasks)

        def calibrate(carry: tuple, other: Array) -> tuple[tuple, None]:
            # One j per task i; `inner` is <calibrated gradient of i, g_k> for all k.
            added, inner = carry
            is_conflict = (inner[tasks, other] < 0) & (other != tasks) & (state["steps"] > 0)
            amount = jnp.where(is_conflict, calibration * amounts[other], 0.0)
            added = added + amount[:, None] * (tasks[None, :] == other[:, None])
            return (added, inner + amount[:, None] * moments[other]), None

        start = jnp.zeros((num_tasks, num_tasks)), gram
        (added, _), _ = jax.lax.scan(calibrate, start, random_orders(key, num_tasks))
        total = added.sum(0)  # multiple of m_j in the update
        of_mean = momentum * total.sum()
        gradients = base.combine_rows(1 + (1 - momentum) * total, jacobian)
        direction = jax.tree.map(lambda g, m: g + of_mean * m, gradients, mean)
        mean = jax.tree.map(lambda m, d: m + (1 - momentum) * (d - m), mean, direction)
        return direction, {"mean": mean, "steps": state["steps"] + 1}

    return _surgery(init=init, combine=combine)


def _products(
    jacobian: PyTree[Float[Array, "T ..."]], mean: PyTree[Float[Array, "..."]]
) -> tuple[Float[Array, "T T"], Float[Array, " T"], Float[Array, ""]]:
    """Inner products of the gradients, of the mean with each gradient, and of the mean."""
    product = functools.partial(jnp.tensordot, precision="highest")
    with_mean = jax.tree.map(lambda g, m: product(g, m, axes=m.ndim), jacobian, mean)
    square = base.gramian(jax.tree.map(lambda m: m[None], mean))[0, 0]
    return base.gramian(jacobian), jax.tree.reduce(jnp.add, with_mean), square
