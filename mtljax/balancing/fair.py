"""Methods that distribute the update fairly among the tasks."""

import dataclasses
import functools
import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, PyTree

from mtljax.balancing import base, solvers
from mtljax.balancing.rates import add_to_window
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
      update_every: Steps between updates of the weights; a task absent at one has weight 0 until
        the next. G is computed at every step; the combinator `every` also saves this time.
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
def pivrg(
    stl_losses: Sequence[float],
    bound: float = 2.0,
    min_temperature: float = 10.0,
    window: int = 100,
) -> base.Balancer:
    """PIVRG: fair update with larger shares for tasks with losses above single-task learning.

    The score of task t is its loss relative to the loss of single-task learning, in percent:
    100 (L_t / stl_losses[t] - 1), with L_t the mean over the last window of steps. The scores give
    p = T * softmax(scores / temperature), where the temperature is the difference of the highest
    and the lowest score over log(bound), but at least `min_temperature`. The weights solve
    (G w)_t = (p_t / w_t)^(1 / 2). During the first window p is 1: `fairgrad` with alpha = 2.

    Convention: as in the authors' code, without its factor T on the update and its limit of 1 on
    the update's norm. The code's score is the change of a task's metrics, averaged over the
    previous epoch, against single-task learning; a balancer reads losses only.

    Args:
      stl_losses: [T] training losses > 0 of single-task learning, in the order of the tasks.
      bound: Largest ratio of two entries of p; > 1.
      min_temperature: Lower bound of the temperature, in percent; the code's `mintemp`.
      window: Number of steps whose losses are averaged; an epoch in the code.

    References:
      Qin, Wang and Yan, 2025, "Revisiting fairness in multitask learning: a performance-driven
      approach for variance reduction", CVPR
    """
    levels = tuple(float(v) for v in stl_losses)
    if not all(0 < v < float("inf") for v in levels):
        raise ValueError(f"stl_losses must be finite and > 0, not {levels}")
    if bound <= 1 or min_temperature <= 0 or window < 1:
        raise ValueError(
            "needs bound > 1, min_temperature > 0 and window >= 1, "
            f"not {bound}, {min_temperature}, {window}"
        )

    def init(num_tasks: int, shared: PyTree) -> base.State:
        if len(levels) != num_tasks:
            raise ValueError(f"stl_losses has {len(levels)} numbers {levels} for {num_tasks} tasks")
        zeros = {name: jnp.zeros(num_tasks) for name in ("sum", "count", "scores")}
        return {**zeros, "steps": jnp.zeros((), jnp.int32)}

    def combine(signals: base.Signals, state: base.State, key: Array) -> base.Combined:
        gram, present, scores = signals.gramian, signals.present, state["scores"]
        highest = jnp.max(jnp.where(present, scores, -jnp.inf))
        lowest = jnp.min(jnp.where(present, scores, jnp.inf))
        temperature = jnp.maximum((highest - lowest) / math.log(bound), min_temperature)
        shares = base.masked_softmax(scores / temperature, present) * present.sum()
        scale = jnp.maximum(jnp.max(jnp.diagonal(gram)), base.TINY)
        shares = shares * base.preference(signals)
        weights = solvers.fair(gram / scale, 2.0, present, shares) * scale ** (-2 / 3)

        of_window, mean, has_loss, full = add_to_window(state, signals, window)
        score = 100 * (mean / jnp.asarray(levels, jnp.float32) - 1)
        return weights, {**of_window, "scores": jnp.where(full & has_loss, score, scores)}

    return _fair(init=init, combine=combine)


@base.with_spec
def consmtl(strength: float = 1.0, limit: float = 0.1) -> base.Balancer:
    """ConsMTL: `fairgrad` with heads that turn the task gradients towards the update.

    The weights w are those of `fairgrad` with alpha = 2. With z the shared representation and
    d = sum_t w_t dL_t/dz, the parameters of task t descend L_t - strength <dL_t/dz, d>, with d held
    constant, where the gradient of the second term is scaled down to `limit` times the norm of the
    first one's if it is longer.

    Convention: as in the authors' code, without its factor T on the update and its limit of 1 on
    the update's norm; one representation for all tasks, as in its experiments on CelebA and QM9.

    Args:
      strength: The paper's lambda: 1 for NYUv2, 50 for Cityscapes and CelebA.
      limit: Largest norm of the additional gradient, relative to that of the task's loss.

    References:
      Qin, Wang and Yan, 2025, "Towards consistent multi-task learning: unlocking the potential of
      task-specific parameters", CVPR
    """
    if strength < 0 or limit < 0:
        raise ValueError(f"needs strength >= 0 and limit >= 0, not {strength}, {limit}")
    alignment = base.HeadAlignment(strength, limit)
    return dataclasses.replace(fairgrad(alpha=2.0), alignment=alignment)


@base.with_spec
def dibs_mtl(steps: int = 1, radius: float = 1.0) -> base.Balancer:
    """DiBS-MTL: bargaining solution that reads only the directions of the gradients.

    Task t prefers the point p_t = -radius u_t, u_t = g_t / |g_t|. From x = 0, each step moves x by
    -(radius / steps) sum_t |x - p_t| u_t: the further from its point, the stronger a task pulls.
    The steps end if |x| > radius. The update descends along -x = sum_t w_t g_t.

    Convention: a strictly increasing function of a task's loss changes neither the direction nor
    the heads' gradients, as they receive the weighted loss. The defaults are the authors' one-step
    method, sum_t u_t; its factor, 0.01 times the learning rate, has no effect with Adam. Their
    multi-step method is steps=5 with the learning rate as radius. A task without gradient gets
    weight 0.

    Args:
      steps: Number of steps per update.
      radius: Distance of the preferred points.

    References:
      Murthy et al., 2025, arXiv:2509.23948
    """
    if steps < 1 or radius <= 0:
        raise ValueError(f"needs steps >= 1 and radius > 0, not {steps}, {radius}")

    def combine(signals: base.Signals, state: base.State, key: Array) -> base.Combined:
        cosines, norms, inside = solvers.unit(signals.gramian, signals.present)
        rates = base.preference(signals) * radius / steps

        def move(_: Array, pulls: Array) -> Array:  # x = -sum_t pulls[t] u_t
            inner = solvers.matvec(cosines, pulls)
            square = solvers.dot(pulls, inner)
            apart = jnp.sqrt(jnp.maximum(square - 2 * radius * inner + radius**2, 0.0))
            further = jnp.where(inside, pulls + rates * apart, 0.0)
            return jnp.where(square > radius**2, pulls, further)

        pulls = jax.lax.fori_loop(0, steps, move, jnp.zeros(norms.shape))
        return pulls / norms, state

    return _fair(init=base.stateless, combine=combine, heads="weighted")


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
