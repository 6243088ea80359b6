"""Weights that are learned with the network, from a model of each task's noise."""

import jax.numpy as jnp
import optax

from mtljax.balancing.base import Balancer, Needs


def uw(learning_rate: float = 1e-2) -> Balancer:
    """Uncertainty weighting: each task's noise variance is learned with the network.

    With s_t = log sigma_t^2, the objective is sum_t (exp(-s_t) L_t + s_t) / 2, so a task's weight
    is exp(-s_t) / 2, and s_t follows Adam on its own gradient, (1 - exp(-s_t) L_t) / 2. It starts
    from s_t = 0. The published code lets the network's optimizer learn s; here s has its own, so
    that the balancer can be used with any.

    Convention: the regression form of the objective for every task; the heads receive the
    weighted loss.

    Args:
      learning_rate: Of Adam on s.

    References:
      Kendall, Gal and Cipolla, 2018, arXiv:1705.07115
    """
    optimizer = optax.adam(learning_rate)

    def init(num_tasks, shared):
        del shared
        log_variance = jnp.zeros(num_tasks)
        return {"log_variance": log_variance, "optimizer": optimizer.init(log_variance)}

    def combine(signals, state, key):
        del key
        precision = jnp.exp(-state["log_variance"])
        gradient = jnp.where(signals.present, (1 - precision * signals.losses) / 2, 0.0)
        updates, moments = optimizer.update(gradient, state["optimizer"])
        new = {
            "log_variance": jnp.where(
                signals.present, state["log_variance"] + updates, state["log_variance"]
            ),
            "optimizer": moments,
        }
        return signals.present * precision / 2, new

    return Balancer(init=init, combine=combine, needs=Needs.LOSSES, heads="weighted")
