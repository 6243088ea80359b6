"""Weights from how fast each task's loss falls."""

import jax
import jax.numpy as jnp

from mtljax.balancing.base import Balancer, Needs


def dwa(temperature: float = 2.0, window: int = 100) -> Balancer:
    """Dynamic weight average: a task whose loss falls more slowly gets more weight.

    With r_t the mean loss of the last window over that of the window before, the weights are
    T * softmax(r / temperature); they are 1 during the first two windows.

    Convention: weights sum to the number of present tasks; the heads receive the weighted loss.

    Args:
      temperature: Higher is closer to equal weights.
      window: Steps whose losses are averaged; the paper takes an epoch.

    References:
      Liu, Johns and Davison, 2019, arXiv:1803.10704
    """
    if temperature <= 0 or window < 1:
        raise ValueError(f"needs temperature > 0 and window >= 1, not {temperature}, {window}")

    def init(num_tasks, shared):
        del shared
        zeros = lambda: jnp.zeros(num_tasks)  # one buffer each: donated states must not share any
        return {
            "sum": zeros(),
            "count": zeros(),
            "last": zeros(),
            "ratio": jnp.ones(num_tasks),
            "windows": jnp.zeros((), jnp.int32),
            "steps": jnp.zeros((), jnp.int32),
        }

    def combine(signals, state, key):
        del key
        present = signals.present
        weights = jax.nn.softmax(jnp.where(present, state["ratio"] / temperature, -jnp.inf))
        weights = jnp.where(present, weights * present.sum(), 0.0)

        total = state["sum"] + signals.losses
        count = state["count"] + present
        steps = state["steps"] + 1
        full = steps >= window
        seen = count > 0
        mean = jnp.where(seen, total / jnp.maximum(count, 1), state["last"])
        ratio = jnp.where(seen & (state["last"] > 0), mean / state["last"], state["ratio"])
        keep = lambda new, old: jnp.where(full, new, old)
        return weights, {
            "sum": keep(0.0, total),
            "count": keep(0.0, count),
            "last": keep(mean, state["last"]),
            "ratio": keep(jnp.where(state["windows"] > 0, ratio, 1.0), state["ratio"]),
            "windows": state["windows"] + full,
            "steps": keep(0, steps),
        }

    return Balancer(init=init, combine=combine, needs=Needs.LOSSES, heads="weighted")
