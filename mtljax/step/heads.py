"""Gradients of the task-specific parameters."""

import dataclasses
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, PyTree

from mtljax.balancing.base import HeadAlignment
from mtljax.models.attention import forward_mode
from mtljax.models.partition import Flat, join, task_of
from mtljax.step.objective import Inputs, Objective, Params
from mtljax.tasks.base import Task


def task_norms(specific: Flat, tasks: Sequence[Task]) -> Float[Array, " T"]:
    """Norm of the parameters of each task."""
    of_task = lambda name: [x for path, x in specific.items() if task_of(path) == name]
    norms = [optax.tree.norm(of_task(task.name)) for task in tasks]
    return jnp.stack([jnp.asarray(norm, jnp.float32) for norm in norms])


def scale_heads(specific: Flat, tasks: Sequence[Task], scale: Float[Array, " T"]) -> Flat:
    """Multiplies the parameters of task t by `scale[t]`, those of tasks not trained by 0."""
    scales: dict[str | None, Array] = {task.name: scale[t] for t, task in enumerate(tasks)}
    return {path: scales.get(task_of(path), 0.0) * x for path, x in specific.items()}


def align_heads(
    objective: Objective,
    params: Params,
    inputs: Inputs,
    specific: Flat,
    *,
    weights: Float[Array, " T"],
    head_scale: Float[Array, " T"],
    alignment: HeadAlignment,
) -> Flat:
    """Adds the gradient of `alignment` to that of the task-specific parameters.

    Args:
      specific: Gradient of the heads, summed over the devices.
      weights: Factors of the sums of the losses in the update of the shared parameters.
      head_scale: Factors of the sums of the losses in `specific`.
    """
    objective = dataclasses.replace(objective, level="features")
    (shared, heads), state = params, inputs.model_state
    tree = join(*params, objective.frozen)
    zeros = objective.representation_zeros(tree, state, inputs.batch["image"])

    def loss(heads: Flat, perturbation: PyTree, factors: Array) -> Array:
        losses = objective.task_losses((shared, heads), inputs, perturbation)
        return (jnp.stack(losses.sums) * factors).sum()

    update = jax.grad(loss, argnums=1)(heads, zeros, weights)
    gradient = lambda perturbation: jax.grad(loss)(heads, perturbation, head_scale)
    with forward_mode(True):
        # The derivative of <dL_t/dz, update> by the parameters of task t.
        change = jax.jvp(gradient, (zeros,), (update,))[1]
    change = jax.tree.map(lambda x: -alignment.strength * x, objective.axis.psum(change))

    limits = alignment.limit * task_norms(specific, objective.tasks)
    factors = jnp.minimum(1.0, limits / (task_norms(change, objective.tasks) + 1e-6))
    return jax.tree.map(jnp.add, specific, scale_heads(change, objective.tasks, factors))
