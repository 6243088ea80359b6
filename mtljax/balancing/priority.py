"""Methods with one primary task that the remaining tasks constrain."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PyTree

from mtljax.balancing import base, solvers
from mtljax.balancing.active_set import nonnegative

PRECISION = 10 * float(jnp.finfo(jnp.float32).eps)
"""Squared length of a sum of gradients, relative to that of its terms, that is rounding."""


@base.with_spec
def pcd(
    tau: float = 0.02, beta: float = 0.999, epsilon: float = 1e-8, primary: int = 0
) -> base.Balancer:
    """PCD: direction nearest to the primary gradient with progress on every other task.

    Gradients are scaled by 1 / sqrt(v_t + epsilon), v_t the bias-corrected running mean of |g_t|^2.
    For the scaled gradients f, d is the nearest point to f_primary with <f_t, d> >= tau |f_t|^2
    for all other tasks, rescaled to the length of g_primary. If no such point exists, it is
    g_primary.

    Convention: 0 for a batch without a primary gradient, as in the paper; an absent task's mean
    does not change. A constraint violated by less than tau / 4 counts as satisfied, since float32
    does not separate the two. It has no preference over tasks other than `primary`.

    Args:
      tau: Part of the progress along its gradient that each other task gets, in [0, 1].
      beta: Decay of the running means, in [0, 1).
      epsilon: Added to the running means.
      primary: Index of the primary task.

    References:
      Varam and AlHajri, 2026, arXiv:2606.29521
    """
    if not 0 <= tau <= 1 or not 0 <= beta < 1:
        raise ValueError(f"needs tau in [0, 1] and beta in [0, 1), not {tau}, {beta}")

    def init(num_tasks: int, shared: PyTree) -> base.State:
        if not 0 <= primary < num_tasks:
            raise ValueError(f"primary must be in 0..{num_tasks - 1}, not {primary}")
        return {"squares": jnp.zeros(num_tasks), "counts": jnp.zeros(num_tasks)}

    def combine(signals: base.Signals, state: base.State, key: Array) -> base.Combined:
        present, square = signals.present, jnp.diagonal(signals.gramian)
        moved = beta * state["squares"] + (1 - beta) * square
        squares = jnp.where(present, moved, state["squares"])
        counts = state["counts"] + present
        bias = -jnp.expm1(counts * jnp.log(beta)) if beta else jnp.ones(counts.shape)
        scale = jax.lax.rsqrt(squares / jnp.where(counts > 0, bias, 1.0) + epsilon)

        cosines, norms, inside = solvers.unit(signals.gramian, present)
        sizes = jnp.where(inside, scale * norms, 0.0)
        others = inside & (jnp.arange(square.shape[0]) != primary)
        lift = _lift(cosines, sizes, sizes[primary] * cosines[:, primary], tau, others)
        parts = lift.at[primary].set(sizes[primary])  # multiples of the unit gradients
        length = solvers.dot(parts, solvers.matvec(cosines, parts))
        exists = inside[primary] & (length > PRECISION * jnp.sum(parts) ** 2)
        factor = norms[primary] / jnp.sqrt(jnp.where(exists, length, 1.0))
        weights = jnp.where(exists & inside, parts / norms * factor, 0.0)
        return weights, {"squares": squares, "counts": counts}

    return base.Balancer(init=init, combine=combine, needs=base.Needs.GRAMIAN)


def _lift(
    cosines: Float[Array, "T T"],
    sizes: Float[Array, " T"],
    along: Float[Array, " T"],
    tau: float,
    others: Bool[Array, " T"],
) -> Float[Array, " T"]:
    """x >= 0 with along + C x >= tau * sizes for the other tasks, of least length; 0 if none."""
    identity = jnp.eye(sizes.shape[0])
    matrix = jnp.where(others[:, None] & others[None, :], cosines, identity)
    target = jnp.where(others, tau * sizes - along, -1.0)
    lift = jnp.where(others, nonnegative(matrix, target), 0.0)
    violation = jnp.where(others, target - solvers.matvec(matrix, lift), 0.0)
    allowed = tau / 4 * sizes + 2e-6 * jnp.max(jnp.where(others, jnp.abs(target), 0.0))
    return jnp.where((violation <= allowed).all(), lift, 0.0)
