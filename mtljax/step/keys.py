"""Random keys of a train step."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from mtljax.step.axis import Axis
from mtljax.step.state import Batch, TrainState


class StepKeys(NamedTuple):
    """Keys of one train step."""

    augment: jax.Array
    """For augmentation and attack."""
    model: jax.Array
    """For dropout."""
    balancer: jax.Array


def step_keys(state: TrainState) -> StepKeys:
    """Returns the keys of the step that starts from `state`."""
    return StepKeys(*jax.random.split(jax.random.fold_in(state.key, state.step), 3))


def example_keys(key: jax.Array, batch: Batch, axis: Axis) -> jax.Array:
    """Returns a key per example, [B], independent of how the batch is sharded."""
    size = batch["image"].shape[0]
    index = jnp.arange(size) + axis.index() * size
    return jax.vmap(lambda i: jax.random.fold_in(key, i))(index)
