"""Gradients of the tasks at perturbed parameters, as sharpness-aware balancers need them."""

import dataclasses

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from mtljax.balancing.base import Perturbation
from mtljax.models.partition import Flat
from mtljax.step.batch_signals import BatchSignals, reciprocal
from mtljax.step.heads import scale_heads, task_norms
from mtljax.step.objective import Inputs, ModelState, Objective, Params

TINY = 1e-12
"""Added to the norm of a gradient that is scaled to length rho, as in the code of SAMO."""


def perturbed_signals(
    objective: Objective, params: Params, inputs: Inputs, key: jax.Array, perturbation: Perturbation
) -> tuple[BatchSignals, ModelState]:
    """Returns the signals of one batch, and the new model state.

    Sums of losses and the model state are those of `params`. The rows, which are summed over the
    devices, are the gradients of each task at its perturbed parameters: see `Perturbation`.

    Args:
      key: Key of the random directions, equal on all devices.
    """
    rho, tasks, psum = perturbation.rho, objective.tasks, objective.axis.psum
    shared, specific = params
    forward = objective.forward(params, inputs)
    scale = reciprocal(psum(forward.counts))
    mean = forward.pullback(scale)
    gradient, of_heads = psum((mean.shared, mean.specific))
    step = scale_heads(of_heads, tasks, rho / (task_norms(of_heads, tasks) + TINY))
    specific = jax.tree.map(jnp.add, specific, step)

    rows, rows_of_heads = [], []
    for task, task_key in enumerate(jax.random.split(key, len(tasks))):
        noise = random_direction(task_key, shared)
        after = inputs._replace(model_state=forward.model_state)
        slope = _slope(objective, params, after, task, noise, perturbation.epsilon)
        ascent = _ascent(gradient, noise, jnp.sign(slope), perturbation.beta)
        size = rho / (optax.tree.norm(ascent) + TINY)
        point = jax.tree.map(lambda p, a, size=size: p + size * a, shared, ascent), specific
        loss = lambda params, task=task: objective.task_losses(params, inputs).sums[task]
        row, row_of_heads = jax.grad(loss)(point)
        rows.append(row)
        rows_of_heads.append(row_of_heads)
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *rows)
    total = jax.tree.map(lambda *leaves: sum(leaves), *rows_of_heads)
    measured = BatchSignals(forward.sums, forward.counts)
    stacked, total = psum((stacked, total))
    return measured._replace(rows=stacked, specific=total), forward.model_state


def random_direction(key: jax.Array, shared: Flat) -> Flat:
    """Standard normal numbers in the shape of the shared parameters."""
    keys = jax.random.split(key, len(shared))
    return {
        path: jax.random.normal(key, leaf.shape)
        for key, (path, leaf) in zip(keys, sorted(shared.items()), strict=True)
    }


def _slope(
    objective: Objective, params: Params, inputs: Inputs, task: int, noise: Flat, epsilon: float
) -> Float[Array, ""]:
    """Difference of the task's loss at the shared parameters moved by `epsilon` and by `-epsilon`.

    Batch normalization works as in evaluation.
    """
    shared, specific = params
    fixed = dataclasses.replace(objective, freeze_statistics=True)

    def total(sign: float) -> Float[Array, ""]:
        moved = jax.tree.map(lambda p, z: p + sign * epsilon * z, shared, noise)
        return fixed.task_losses((moved, specific), inputs).sums[task]

    return objective.axis.psum(total(1.0) - total(-1.0))


def _ascent(gradient: Flat, noise: Flat, sign: Float[Array, ""], beta: float) -> Flat:
    """Mixture of the mean gradient and the task's estimated one, which has its norm per array."""

    def mix(gradient: Array, noise: Array) -> Array:
        length = jnp.linalg.norm(gradient.ravel()) / jnp.linalg.norm(noise.ravel())
        return (1 - beta) * gradient + beta * sign * length * noise

    return jax.tree.map(mix, gradient, noise)
