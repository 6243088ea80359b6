"""Methods that give every task its fair part of the update."""

import jax.numpy as jnp
import optax
from jaxtyping import Array, PyTree

from mtljax.balancing import solvers
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
from mtljax.balancing.uncertainty import learn, to_learn


@with_spec
def nash_mtl(update_every: int = 1, normalize: bool = False, max_norm: float = 0.0) -> Balancer:
    """Nash bargaining: the update to which all tasks would agree.

    The weights solve G w = 1 / w, with G the Gramian: each task gains the same share of what it
    could, whatever the scale of its loss. The update's squared norm is the number of tasks.

    Convention: as in the paper's algorithm. Its code, LibMTL and TorchJD divide G by its Frobenius
    norm first (`normalize`), and cap the update's norm at 1 (`max_norm`). The heads receive their
    own loss.

    Args:
      update_every: Steps for which weights are kept; tasks absent when they were found weigh 0.
      normalize: Whether G is divided by its Frobenius norm.
      max_norm: The update's norm is scaled down to this if it is larger; 0 for no bound.

    References:
      Navon et al., 2022, arXiv:2202.01017
    """
    if update_every < 1 or max_norm < 0:
        raise ValueError(f"needs update_every >= 1, max_norm >= 0, not {update_every}, {max_norm}")

    def init(num_tasks: int, shared: PyTree) -> State:
        if update_every == 1:
            return ()
        return {"weights": jnp.zeros(num_tasks), "steps": jnp.zeros((), jnp.int32)}

    def combine(signals: Signals, state: State, key: Array) -> Combined:
        gram = signals.gramian
        scale = jnp.maximum(jnp.max(jnp.diagonal(gram)), TINY)
        unit = gram / scale
        weights = solvers.fair(unit, 1.0, signals.present)  # those of G are sqrt(scale) times less
        if normalize:
            weights = weights * jnp.sqrt(jnp.linalg.norm(unit))
        else:
            weights = weights / jnp.sqrt(scale)
        if update_every > 1:
            fresh = state["steps"] % update_every == 0
            weights = jnp.where(fresh, weights, state["weights"])
            state = {"weights": weights, "steps": state["steps"] + 1}
        if max_norm:
            square = jnp.dot(weights, solvers.matvec(unit, weights))
            norm = jnp.sqrt(jnp.maximum(square, 0.0) * scale)
            weights = weights * jnp.minimum(1.0, max_norm / jnp.maximum(norm, TINY))
        return jnp.where(signals.present, weights, 0.0), state

    return Balancer(init=init, combine=combine, needs=Needs.GRAMIAN)


@with_spec
def fairgrad(alpha: float = 1.0) -> Balancer:
    """FairGrad: the update that is alpha-fair to the tasks' gains.

    The weights solve G w = w^(-1 / alpha). alpha near 0 is the plain sum, 1 is Nash-MTL, large
    alpha serves the worst-off task.

    Convention: as in the paper; the heads receive their own loss.

    Args:
      alpha: > 0; the default of the paper's code. The paper takes 2 for NYUv2 and Cityscapes.

    References:
      Ban and Ji, 2024, arXiv:2402.15638
    """
    if alpha <= 0:
        raise ValueError(f"alpha must be > 0, not {alpha}")

    def combine(signals: Signals, state: State, key: Array) -> Combined:
        scale = jnp.maximum(jnp.max(jnp.diagonal(signals.gramian)), TINY)
        weights = solvers.fair(signals.gramian / scale, alpha, signals.present)
        return weights * scale ** (-alpha / (1 + alpha)), state

    return Balancer(init=stateless, combine=combine, needs=Needs.GRAMIAN)


@with_spec
def imtl_g() -> Balancer:
    """Impartial learning of gradients: the update's projections on all task gradients are equal.

    The weights sum to 1 and <g_t / |g_t|, sum_s w_s g_s> is the same for all t: w is proportional
    to C^-1 1 divided by the norms, with C the cosines. They can be negative. Where that cannot be
    normalised (C^-1 1 sums to 0), all are 0.

    Convention: weights sum to 1, as in the paper; a pseudoinverse where gradients are linearly
    dependent, as in TorchJD; the heads receive their own loss.

    References:
      Liu et al., 2021, "Towards impartial multi-task learning", ICLR, openreview:IMPnRXEWpvr
    """

    def combine(signals: Signals, state: State, key: Array) -> Combined:
        return _impartial(signals.gramian, signals.present), state

    return Balancer(init=stateless, combine=combine, needs=Needs.GRAMIAN)


@with_spec
def imtl(learning_rate: float = 1e-2) -> Balancer:
    """Impartial learning of both: losses scaled by `imtl_l`, their gradients balanced by `imtl_g`.

    Task t's loss is exp(s_t) L_t with a learned s_t, see `imtl_l`; the weights are imtl_g's for the
    gradients of these, times exp(s_t).

    Convention: as `imtl_g`; the heads receive their own loss, unscaled (in the paper exp(s_t) L_t).

    Args:
      learning_rate: Of Adam on s.

    References:
      Liu et al., 2021, "Towards impartial multi-task learning", ICLR, openreview:IMPnRXEWpvr
    """
    optimizer = optax.adam(learning_rate)

    def init(num_tasks: int, shared: PyTree) -> State:
        return to_learn(optimizer, "log_scale", jnp.zeros(num_tasks))

    def combine(signals: Signals, state: State, key: Array) -> Combined:
        scale = jnp.exp(state["log_scale"])
        scaled = signals.gramian * scale[:, None] * scale[None, :]
        weights = _impartial(scaled, signals.present) * scale
        gradient = scale * signals.losses - 1
        return weights, learn(optimizer, state, "log_scale", gradient, signals.present)

    return Balancer(init=init, combine=combine, needs=Needs.GRAMIAN)


def _impartial(gramian, present):
    cosines, norms, inside = solvers.unit(gramian, present)
    smallest = jnp.min(jnp.where(inside, norms, jnp.inf))
    inverse = solvers.pseudo_solve(cosines, inside.astype(jnp.float32), inside)
    weights = jnp.where(inside, inverse * smallest / norms, 0.0)
    total, size = weights.sum(), jnp.abs(weights).sum()
    degenerate = jnp.abs(total) <= 1e-6 * size
    return jnp.where(degenerate, 0.0, weights / jnp.where(degenerate, 1.0, total))
