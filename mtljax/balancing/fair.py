"""Methods that distribute the update fairly among the tasks."""

import functools

import jax.numpy as jnp
import optax
from jaxtyping import Array, PyTree

from mtljax.balancing import base, solvers
from mtljax.balancing.uncertainty import learn, learnable_state

_fair = functools.partial(base.Balancer, needs=base.Needs.GRAMIAN, prefers=True)


@base.with_spec
def nash_mtl(
    update_every: int = 1, normalize: bool = False, max_norm: float = 0.0
) -> base.Balancer:
    """Nash-MTL: the Nash bargaining solution of the tasks.

    The weights solve G w = 1 / w, with G the Gramian: each task gets an equal share of its possible
    gain, at any scale of its loss. The squared norm of the update is the number of tasks.

    Convention: as in the paper's algorithm. Its code, LibMTL and TorchJD divide G by its Frobenius
    norm first (`normalize`) and limit the update's norm to 1 (`max_norm`).

    Args:
      update_every: Steps between updates; a task absent at one has weight 0 until the next.
      normalize: Divide G by its Frobenius norm.
      max_norm: Upper bound of the update's norm; 0 for none.

    References:
      Navon et al., 2022, arXiv:2202.01017
    """
    if update_every < 1 or max_norm < 0:
        raise ValueError(f"needs update_every >= 1, max_norm >= 0, not {update_every}, {max_norm}")

    def init(num_tasks: int, shared: PyTree) -> base.State:
        if update_every == 1:
            return ()
        return {"weights": jnp.zeros(num_tasks), "steps": jnp.zeros((), jnp.int32)}

    def combine(signals: base.Signals, state: base.State, key: Array) -> base.Combined:
        gram = signals.gramian
        scale = jnp.maximum(jnp.max(jnp.diagonal(gram)), base.TINY)
        unit = gram / scale
        preference = base.preference(signals)
        weights = solvers.fair(unit, 1.0, signals.present, preference)  # sqrt(scale) those of G
        if normalize:
            weights = weights * jnp.sqrt(jnp.linalg.norm(unit))
        else:
            weights = weights / jnp.sqrt(scale)
        if update_every > 1:
            is_update = state["steps"] % update_every == 0
            weights = jnp.where(is_update, weights, state["weights"])
            state = {"weights": weights, "steps": state["steps"] + 1}
        if max_norm:
            square = solvers.dot(weights, solvers.matvec(unit, weights))
            norm = jnp.sqrt(jnp.maximum(square, 0.0) * scale)
            weights = weights * jnp.minimum(1.0, max_norm / jnp.maximum(norm, base.TINY))
        return jnp.where(signals.present, weights, 0.0), state

    return _fair(init=init, combine=combine)


@base.with_spec
def fairgrad(alpha: float = 1.0) -> base.Balancer:
    """FairGrad: the alpha-fair update.

    The weights solve G w = w^(-1 / alpha). alpha near 0 is the plain sum, 1 is Nash-MTL, and large
    alpha favors the task with the smallest gain.

    Convention: as in the paper.

    Args:
      alpha: > 0. The default is from the paper's code; 2 in the paper for NYUv2 and Cityscapes.

    References:
      Ban and Ji, 2024, arXiv:2402.15638
    """
    if alpha <= 0:
        raise ValueError(f"alpha must be > 0, not {alpha}")

    def combine(signals: base.Signals, state: base.State, key: Array) -> base.Combined:
        scale = jnp.maximum(jnp.max(jnp.diagonal(signals.gramian)), base.TINY)
        preference = base.preference(signals)
        weights = solvers.fair(signals.gramian / scale, alpha, signals.present, preference)
        return weights * scale ** (-alpha / (1 + alpha)), state

    return _fair(init=base.stateless, combine=combine)


@base.with_spec
def imtl_g() -> base.Balancer:
    """IMTL-G: update with equal projections on all task gradients.

    The weights sum to 1 and <g_t / |g_t|, sum_s w_s g_s> is the same for all t: w is proportional
    to C^-1 1 divided by the norms, with C the cosines. Weights can be negative, and are all 0 if
    C^-1 1 sums to 0.

    Convention: weights sum to 1 (paper); pseudoinverse for linearly dependent gradients (TorchJD).

    References:
      Liu et al., 2021, "Towards impartial multi-task learning", ICLR, openreview:IMPnRXEWpvr
    """

    def combine(signals: base.Signals, state: base.State, key: Array) -> base.Combined:
        return _impartial(signals.gramian, signals), state

    return _fair(init=base.stateless, combine=combine)


@base.with_spec
def imtl(learning_rate: float = 1e-2) -> base.Balancer:
    """IMTL: losses scaled by `imtl_l`, their gradients balanced by `imtl_g`.

    Task t's loss is exp(s_t) L_t with a learned s_t, see `imtl_l`; the weights are those of
    `imtl_g` for the gradients of the scaled losses, times exp(s_t).

    Convention: as `imtl_g`; the heads receive the unweighted loss L_t (the paper: exp(s_t) L_t).

    Args:
      learning_rate: Learning rate of Adam on s.

    References:
      Liu et al., 2021, "Towards impartial multi-task learning", ICLR, openreview:IMPnRXEWpvr
    """
    optimizer = optax.adam(learning_rate)
    init = lambda num_tasks, shared: learnable_state(optimizer, "log_scale", jnp.zeros(num_tasks))

    def combine(signals: base.Signals, state: base.State, key: Array) -> base.Combined:
        scale = jnp.exp(state["log_scale"])
        scaled = signals.gramian * scale[:, None] * scale[None, :]
        weights = _impartial(scaled, signals) * scale
        gradient = scale * signals.losses - 1
        return weights, learn(optimizer, state, "log_scale", gradient, signals.present)

    return _fair(init=init, combine=combine)


def _impartial(gramian: Array, signals: base.Signals) -> Array:
    """Weights of IMTL-G for a Gramian."""
    cosines, norms, inside = solvers.unit(gramian, signals.present)
    smallest = jnp.min(jnp.where(inside, norms, jnp.inf))
    target = jnp.where(inside, base.preference(signals), 0.0)
    inverse = solvers.pseudo_solve(cosines, target, inside)
    weights = jnp.where(inside, inverse * smallest / norms, 0.0)
    total, size = weights.sum(), jnp.abs(weights).sum()
    degenerate = jnp.abs(total) <= 1e-6 * size
    return jnp.where(degenerate, 0.0, weights / jnp.where(degenerate, 1.0, total))
