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
UNROLLED_TASKS = 8
"""Up to this number of tasks each has passes in the program that visit its head only; the passes of
more tasks are a loop over all heads, which compiles in the time of one task."""


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
    mean = forward.pullback(reciprocal(psum(forward.counts)))
    gradient, of_heads = psum((mean.shared, mean.specific))
    step = scale_heads(of_heads, tasks, rho / (task_norms(of_heads, tasks) + TINY))
    heads = jax.tree.map(jnp.add, specific, step)
    after = inputs._replace(model_state=forward.model_state)

    def gradient_of(task: int | Array, key: jax.Array) -> Params:
        noise = optax.tree.random_like(key, shared)
        slope = _slope(objective, params, after, task, noise, perturbation.epsilon)
        ascent = _ascent(gradient, noise, jnp.sign(slope), perturbation.beta)
        size = rho / (optax.tree.norm(ascent) + TINY)
        point = jax.tree.map(lambda p, a: p + size * a, shared, ascent), heads
        return jax.grad(lambda params: _sum_of(task, objective, params, inputs))(point)

    keys = jax.random.split(key, len(tasks))
    if len(tasks) <= UNROLLED_TASKS:
        gradients = [gradient_of(task, key) for task, key in enumerate(keys)]
        rows, rows_of_heads = jax.tree.map(lambda *leaves: jnp.stack(leaves), *gradients)
    else:
        rows, rows_of_heads = jax.lax.map(lambda x: gradient_of(*x), (jnp.arange(len(tasks)), keys))
    rows = objective.constraints.shard_rows(rows)
    rows, specific = psum((rows, jax.tree.map(lambda x: x.sum(0), rows_of_heads)))
    measured = BatchSignals(forward.sums, forward.counts, rows=rows, specific=specific)
    return measured, forward.model_state


def _sum_of(
    task: int | Array, objective: Objective, params: Params, inputs: Inputs
) -> Float[Array, ""]:
    """Sum of the losses of one task; for an int, other heads are not visited."""
    sums = objective.task_losses(params, inputs).sums
    return sums[task] if isinstance(task, int) else jnp.stack(sums)[task]


def _slope(
    objective: Objective,
    params: Params,
    inputs: Inputs,
    task: int | Array,
    noise: Flat,
    epsilon: float,
) -> Float[Array, ""]:
    """Difference of the task's loss at the shared parameters moved by `epsilon` and by `-epsilon`.

    Batch normalization works as in evaluation.
    """
    shared, specific = params
    fixed = dataclasses.replace(objective, freeze_statistics=True)

    def total(sign: float) -> Float[Array, ""]:
        moved = jax.tree.map(lambda p, z: p + sign * epsilon * z, shared, noise)
        return _sum_of(task, fixed, (moved, specific), inputs)

    return objective.axis.psum(total(1.0) - total(-1.0))


def _ascent(gradient: Flat, noise: Flat, sign: Float[Array, ""], beta: float) -> Flat:
    """Mixture of the mean gradient and the task's estimated one, which has its norm per array."""

    def mix(gradient: Array, noise: Array) -> Array:
        length = optax.tree.norm(gradient) / optax.tree.norm(noise)
        return (1 - beta) * gradient + beta * sign * length * noise

    return jax.tree.map(mix, gradient, noise)
