"""Trial steps of balancers that read the losses after an update; see `Signals.lookahead`."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from mtljax.balancing.base import Ahead
from mtljax.models.attention import forward_mode
from mtljax.step.objective import Inputs, Objective, Params

Lookahead = Callable[[Float[Array, " T"], float, int], Ahead]
"""See `Signals.lookahead`."""


def make_lookahead(
    objective: Objective, params: Params, inputs: Inputs, scale: Float[Array, " R"]
) -> Lookahead:
    """Returns the function `Signals.lookahead` at these parameters.

    Args:
      scale: 1 / count of each row, 0 for absent tasks.
    """
    num_tasks, psum = len(objective.tasks), objective.axis.psum

    def local(params: Params) -> Float[Array, " R"]:
        """Contribution of this device to the mean losses."""
        return objective.losses(params, inputs) * scale

    def gradient(params: Params, weights: Float[Array, " T"], sample: int) -> Params:
        row = jnp.zeros_like(scale).at[sample * num_tasks + jnp.arange(num_tasks)].set(weights)
        return psum(jax.grad(lambda p: (row * local(p)).sum())(params))

    def trial(weights: Float[Array, " T"], step_size: float, steps: int) -> Ahead:
        ahead = params
        for _ in range(steps):
            change = gradient(ahead, weights, 0)
            ahead = jax.tree.map(lambda p, g: p - step_size * g, ahead, change)

        def products(coefficients: Float[Array, " T"]) -> Float[Array, " T"]:
            direction = gradient(ahead, coefficients, 1)
            with forward_mode(True):
                return psum(jax.jvp(local, (params,), (direction,))[1])[:num_tasks]

        return Ahead(psum(local(ahead)).reshape(-1, num_tasks), products)

    return trial
