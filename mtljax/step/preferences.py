"""Preferences over tasks in the training of models conditioned on them."""

from collections.abc import Callable
from typing import TypeVar

import jax
from jaxtyping import Array, Float

from mtljax.balancing.base import Balancer
from mtljax.step.state import Batch, TrainState

STREAM = 1000
"""Number folded into the key of a step for the preference; its other keys are those of a split."""
Logs = TypeVar("Logs")
Step = Callable[[TrainState, Batch], tuple[TrainState, Logs]]
"""Train step."""


def require_prefers(balancer: Balancer) -> None:
    """Raises ValueError if a balancer does not read the preference of a conditioned model."""
    if not balancer.prefers or balancer.period > 1:
        reads = "reads the preference" + " in every update" * (balancer.period > 1)
        raise ValueError(
            f"a network conditioned on the preference needs a balancer that {reads}: ew, which "
            "weights the losses by it, or cosmos for condition cosmos"
        )


def at_drawn_preferences(step: Step, draw: Callable[[jax.Array, int], Float[Array, " T"]]) -> Step:
    """Creates a step of a conditioned model that takes a new preference for each batch.

    `draw(key, num_tasks)` gets a key that depends on the key and number of the step only, so the
    preference is the same on all devices and in a resumed run. The new state has the preference of
    the old one.
    """

    def conditioned(state: TrainState, batch: Batch) -> tuple[TrainState, Logs]:
        before = state.preference
        if before is None:
            raise ValueError(
                "the model has a conditioning, but no variable 'preference' in its collection "
                "'constants'; see mtljax.models.conditioning"
            )
        key = jax.random.fold_in(jax.random.fold_in(state.key, state.step), STREAM)
        new, logs = step(state.with_preference(draw(key, before.shape[-1])), batch)
        return new.with_preference(before), logs

    return conditioned
