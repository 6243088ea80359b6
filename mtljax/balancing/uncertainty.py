"""Weights from a model of the noise of each task."""

import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, PyTree

from mtljax.balancing import base


@base.with_spec
def uw(learning_rate: float = 1e-2) -> base.Balancer:
    """Uncertainty weighting (UW): weights from learned noise variances.

    With s_t = log sigma_t^2, the objective is sum_t (exp(-s_t) L_t + s_t) / 2, so a task's weight
    is exp(-s_t) / 2, and s_t follows Adam on its gradient, (1 - exp(-s_t) L_t) / 2, from s_t = 0
    (LibMTL: -0.5). In the published code the network's optimizer learns s, here a separate one.

    Convention: the regression form for every task; the heads receive the weighted loss.

    Args:
      learning_rate: Learning rate of Adam on s.

    References:
      Kendall, Gal and Cipolla, 2018, arXiv:1705.07115
    """
    return _learned_scale(learning_rate, factor=0.5, sign=-1.0)


@base.with_spec
def imtl_l(learning_rate: float = 1e-2) -> base.Balancer:
    """IMTL-L: learned scales that bring all losses to the same magnitude.

    The objective is sum_t (exp(s_t) L_t - s_t): weight exp(s_t), and s_t follows Adam on its
    gradient, exp(s_t) L_t - 1, from s_t = 0. At the optimum exp(s_t) L_t = 1 for all tasks.

    Convention: the sum; a separate optimizer, as in `uw`; the heads receive the weighted loss.

    Args:
      learning_rate: Learning rate of Adam on s.

    References:
      Liu et al., 2021, "Towards impartial multi-task learning", ICLR, openreview:IMPnRXEWpvr
    """
    return _learned_scale(learning_rate, factor=1.0, sign=1.0)


@base.with_spec
def uw_so(temperature: float = 1.0) -> base.Balancer:
    """Soft optimal uncertainty weighting (UW-SO): softmax of the optimal weights 1 / L_t.

    The weight 1 / L_t is optimal in `uw`; a softmax limits it: w = softmax((1 / L) / temperature).

    Convention: weights sum to 1 and have no gradient; the heads receive the weighted loss.

    Args:
      temperature: Softmax temperature, tuned per data set in the paper; higher is more equal.

    References:
      Kirchdorfer et al., 2024, arXiv:2408.07985
    """
    if temperature <= 0:
        raise ValueError(f"temperature must be > 0, not {temperature}")

    def combine(signals: base.Signals, state: base.State, key: Array) -> base.Combined:
        logits = 1 / jnp.maximum(signals.losses, base.LEAST_LOSS) / temperature
        return base.masked_softmax(logits, signals.present), state

    return base.Balancer(
        init=base.stateless, combine=combine, needs=base.Needs.LOSSES, heads="weighted"
    )


def _learned_scale(learning_rate: float, factor: float, sign: float) -> base.Balancer:
    """Balancer that minimizes factor * sum_t (exp(sign * s_t) L_t - sign * s_t) over s by Adam."""
    optimizer = optax.adam(learning_rate)
    init = lambda num_tasks, shared: learnable_state(optimizer, "log_scale", jnp.zeros(num_tasks))

    def combine(signals: base.Signals, state: base.State, key: Array) -> base.Combined:
        scale = jnp.exp(sign * state["log_scale"])
        gradient = factor * sign * (scale * signals.losses - 1)
        new = learn(optimizer, state, "log_scale", gradient, signals.present)
        return jnp.where(signals.present, factor * scale, 0.0), new

    return base.Balancer(init=init, combine=combine, needs=base.Needs.LOSSES, heads="weighted")


def learnable_state(
    optimizer: optax.GradientTransformation, name: str, start: Float[Array, " T"]
) -> dict[str, PyTree]:
    """Initial state for `learn`, with values `start` under the key `name`."""
    return {name: start, "optimizer": optimizer.init(start)}


def learn(
    optimizer: optax.GradientTransformation,
    state: dict[str, PyTree],
    name: str,
    gradient: Float[Array, " T"],
    present: Bool[Array, " T"],
) -> dict[str, PyTree]:
    """One optimizer step on `state[name]` [T]; entries of absent tasks do not change."""
    values = state[name]
    gradient = jnp.where(present, gradient, 0.0)
    updates, moments = optimizer.update(gradient, state["optimizer"], values)
    return {**state, name: jnp.where(present, values + updates, values), "optimizer": moments}
