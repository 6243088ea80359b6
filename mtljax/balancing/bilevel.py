"""Bilevel methods: weights learned from the losses on a second sample of data after a trial step.

The first sample trains the network, the second the weights. It is another part of the training
batch, as in the papers' experiments, or a validation batch. A task must have labels in both.
"""

import functools

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, PyTree

from mtljax.balancing import base, solvers
from mtljax.balancing.uncertainty import learn, learnable_state

_bilevel = functools.partial(base.Balancer, heads="weighted", samples=2, lookahead=True)


@base.with_spec
def auto_lambda(
    step_size: float = 0.1,
    learning_rate: float = 1e-4,
    start: float = 0.1,
    primary: tuple[int, ...] | None = None,
) -> base.Balancer:
    """Auto-Lambda: weights that lower the losses on the second sample after a trial step.

    The weights w follow Adam on the sum of the primary tasks' losses on the second sample after the
    trial step theta - step_size * sum_t w_t grad L_t. Its derivative by w_t is -step_size times the
    inner product of that sum's gradient after the trial step and grad L_t before it (the paper's
    code uses finite differences). The update descends sum_t w_t L_t on the first sample.

    Convention: weights are not normalized and may leave [0, 1]; the trial step is plain descent
    (the code adds the optimizer's momentum and weight decay); the heads receive the weighted loss.

    Args:
      step_size: Size of the trial step; the network's learning rate in the paper.
      learning_rate: Learning rate of Adam on the weights.
      start: Initial weight.
      primary: Indices of the tasks whose losses are optimized; all if None.

    References:
      Liu et al., 2022, arXiv:2202.03091
    """
    optimizer = optax.adam(learning_rate)

    first = lambda num_tasks: jnp.full(num_tasks, start, jnp.float32)
    init = lambda num_tasks, shared: learnable_state(optimizer, "weights", first(num_tasks))

    def combine(signals: base.Signals, state: base.State, key: Array) -> base.Combined:
        present = signals.present.all(0)
        counts = present.astype(jnp.float32)
        if primary is not None:
            counts = counts * jnp.zeros_like(counts).at[jnp.asarray(primary)].set(1.0)
        weights = jnp.where(present, state["weights"], 0.0)
        gradient = -step_size * signals.lookahead(weights, step_size, 1).products(counts)
        state = learn(optimizer, state, "weights", gradient, present)
        weights = jnp.where(present, state["weights"], 0.0)
        return jnp.stack([weights, jnp.zeros_like(weights)]), state

    return _bilevel(init=init, combine=combine, needs=base.Needs.LOSSES)


@base.with_spec
def moml(step_size: float = 0.1, learning_rate: float = 1e-3) -> base.Balancer:
    """MOML: weights that lower all losses on the second sample, by MGDA.

    With w = softmax(a), task s's loss on the second sample after the trial step theta - step_size *
    sum_t w_t grad L_t has a gradient in a; a follows Adam on the combination of these T gradients
    with the smallest norm. The update descends sum_t w_t L_t on both samples.

    Convention: one trial step (the paper: one or more); weights sum to 1; the mean over both
    samples. The heads receive the weighted loss.

    Args:
      step_size: Size of the trial step.
      learning_rate: Learning rate of Adam on a.

    References:
      Ye et al., 2021, arXiv:2102.07121
    """
    optimizer = optax.adam(learning_rate)

    def combine(signals: base.Signals, state: base.State, key: Array) -> base.Combined:
        present = signals.present.all(0)
        weights = base.masked_softmax(state["logits"], present)
        ahead = signals.lookahead(weights, step_size, 1)
        products = jax.vmap(ahead.products)(jnp.diag(present.astype(jnp.float32)))
        gradients = -step_size * _times_softmax_jacobian(products, weights)
        gram = solvers.matvec(gradients, gradients.T)
        gradient = solvers.matvec(gradients.T, solvers.min_norm(gram, present))
        state = learn(optimizer, state, "logits", gradient, present)
        return jnp.tile(base.masked_softmax(state["logits"], present) / 2, (2, 1)), state

    init = lambda num_tasks, shared: learnable_state(optimizer, "logits", jnp.zeros(num_tasks))
    return _bilevel(init=init, combine=combine, needs=base.Needs.LOSSES)


@base.with_spec
def forum(
    step_size: float = 0.1, steps: int = 5, rho: float = 0.1, learning_rate: float = 1e-3
) -> base.Balancer:
    """FORUM: descent on the second sample's losses, with the weighted loss near its minimum.

    With w = softmax(a), f(a, theta) = sum_t w_t L_t on the first sample, and q = f(a, theta) - f(a,
    theta'), where theta' is theta after `steps` gradient steps on f. With F_t the second sample's
    gradients at unit length, the update is sum_t l_t F_t + v grad q, v = max(rho - <grad q, sum_t
    l_t F_t> / |grad q|^2, 0): q decreases by at least rho |grad q|^2. The l on the simplex minimize
    the norm of that direction and are averaged over the steps with factor k^(-3/4) at step k. a
    follows Adam on its part of the update, v (dq / da).

    Convention: gradients of the shared parameters (paper: of all). The heads receive the loss
    weighted as above, on both samples.

    Args:
      step_size: Size of the steps to theta'.
      steps: Number of steps to theta'.
      rho: Decrease of q, as a fraction of |grad q|^2.
      learning_rate: Learning rate of Adam on a.

    References:
      Ye et al., 2024, arXiv:2401.09257
    """
    optimizer = optax.adam(learning_rate)

    def init(num_tasks: int, shared: PyTree) -> base.State:
        logits = learnable_state(optimizer, "logits", jnp.zeros(num_tasks))
        return {**logits, "mean": jnp.zeros(num_tasks), "steps": jnp.zeros((), jnp.int32)}

    def combine(signals: base.Signals, state: base.State, key: Array) -> base.Combined:
        present = signals.present.all(0)
        weights = base.masked_softmax(state["logits"], present)
        ahead = signals.lookahead(weights, step_size, steps)
        fall = jnp.where(present, signals.losses[0] - ahead.losses[0], 0.0)
        of_logits = _times_softmax_jacobian(fall, weights)

        gram = signals.gramian
        square = solvers.dot(weights, solvers.matvec(gram[0, :, 0, :], weights))
        length = jnp.sqrt(jnp.maximum(square, 0.0) + solvers.dot(of_logits, of_logits))
        safe = jnp.maximum(length, base.TINY)
        cosines, norms, inside = solvers.unit(gram[1, :, 1, :], present)
        normal = solvers.matvec(gram[1, :, 0, :], weights) / norms / safe
        # A cosine: where the gradients cancel, the rounding error of the length exceeds it.
        normal = jnp.where(inside & (length > 0), jnp.clip(normal, -1.0, 1.0), 0.0)
        chosen = solvers.constrained_min_norm(cosines, normal, length, rho, inside)

        step = (state["steps"] + 1).astype(jnp.float32)
        mean = state["mean"] + jnp.where(inside, step**-0.75 * (chosen - state["mean"]), 0.0)
        current = jnp.where(inside, mean, 0.0)
        pull = jnp.maximum(rho * current.sum() - solvers.dot(current, normal) / safe, 0.0)
        new = learn(optimizer, state, "logits", pull * of_logits, present)
        new = {**new, "mean": mean, "steps": state["steps"] + 1}
        return jnp.stack([pull * weights, current / norms]), new

    return _bilevel(init=init, combine=combine, needs=base.Needs.GRAMIAN)


def _times_softmax_jacobian(rows: Array, weights: Array) -> Array:
    """rows @ (diag(w) - w w'): turns gradients in w into gradients in the logits."""
    return (rows - jnp.sum(rows * weights, axis=-1, keepdims=True)) * weights
