"""Fixed sums of the losses: the plain baselines that every other method must beat."""

from collections.abc import Sequence

import jax.numpy as jnp

from mtljax.balancing.base import Balancer, Needs, stateless


def ew() -> Balancer:
    """Equal weighting: every task counts 1, so the update descends the sum of the losses.

    Convention: the sum, not the mean, as in LibMTL; the heads receive the same.
    """

    def combine(signals, state, key):
        del key
        return signals.present.astype(jnp.float32), state

    return Balancer(init=stateless, combine=combine, needs=Needs.LOSSES, heads="weighted")


def fixed(weights: Sequence[float]) -> Balancer:
    """Fixed weights, one per task, in the order of the tasks.

    Convention: used as they are, not normalised; the heads receive the weighted loss.

    Args:
      weights: [T] numbers >= 0, not all 0.

    Raises:
      ValueError: A weight is negative or not finite, all are 0, or their number is not T.
    """
    weights = tuple(float(w) for w in weights)
    if not all(0 <= w < float("inf") for w in weights) or not any(weights):
        raise ValueError(f"weights must be finite, >= 0 and not all 0, not {weights}")

    def init(num_tasks, shared):
        del shared
        if len(weights) != num_tasks:
            raise ValueError(f"{len(weights)} weights {weights} for {num_tasks} tasks")
        return ()

    def combine(signals, state, key):
        del key
        return jnp.asarray(weights, jnp.float32) * signals.present, state

    return Balancer(init=init, combine=combine, needs=Needs.LOSSES, heads="weighted")
