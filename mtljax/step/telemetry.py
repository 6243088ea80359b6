"""Telemetry: agreement of the task gradients of a batch before the step, and curvature of the
losses along the update that the method then took.

It is a separate program, so it has the same cost and the same results for every method.
"""

import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float, PyTree

from mtljax.balancing.base import TINY, gramian
from mtljax.models.attention import forward_mode
from mtljax.models.freezing import split_frozen
from mtljax.models.partition import Flat, partition
from mtljax.parallel import Constraints
from mtljax.step.distillation import Distillation
from mtljax.step.objective import Forward, Inputs, Objective
from mtljax.step.state import Batch, TrainState, example_keys, step_keys
from mtljax.step.task_gradients import task_gradients
from mtljax.step.train_step import Augment
from mtljax.tasks.base import Task
from mtljax.utils.tree import flatten

SUMMARY = ("conflicting", "mean_cosine", "mean_magnitude_similarity", "condition", "curvature")
"""Names of the scalar measurements."""


def summary(measurements: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Returns means over training; for the condition number the geometric mean."""
    means = {}
    for name in SUMMARY:
        values = np.array([values[name] for values in measurements if name in values], float)
        values = values[np.isfinite(values)]
        if len(values):
            mean = np.exp(np.log(values).mean()) if name == "condition" else values.mean()
            means[name] = float(mean)
    return means


class ProbePoint(NamedTuple):
    """Losses of a batch as in a train step, as a function of the shared parameters."""

    shared: Flat
    """Trainable shared parameters of the state."""
    forward: Forward
    """Forward pass at `shared`."""
    sums: Callable[[Flat], Float[Array, " T"]]
    """Sum of the losses of each task on the same batch, at other shared parameters."""


Probe: TypeAlias = Callable[[TrainState, Batch], ProbePoint]
"""Function from a state and a batch to the point of a measurement."""


def make_probe(
    model: nn.Module,
    tasks: Sequence[Task],
    *,
    dtype: DTypeLike | None = None,
    augment: Augment | None = None,
    freeze: Sequence[str] = (),
    freeze_statistics: bool = False,
    distill: Distillation | None = None,
    constraints: Constraints = Constraints(),
) -> Probe:
    """Returns `probe(state, batch) -> ProbePoint`; for the arguments see `make_train_step`."""
    objective = Objective(
        model,
        tuple(tasks),
        dtype=dtype,
        freeze_statistics=freeze_statistics,
        distillation=distill,
        constraints=constraints,
    )

    def probe(state: TrainState, batch: Batch) -> ProbePoint:
        keys = step_keys(state)
        if augment is not None:
            batch = augment(example_keys(keys.augment, batch, objective.axis), batch)
        trainable, frozen = split_frozen(state.params, freeze)
        shared, specific = partition(trainable)
        losses_of = objective.with_constants(frozen, state.teachers)
        inputs = Inputs(state.model_state, batch, keys.model)
        forward = losses_of.forward((shared, specific), inputs)
        return ProbePoint(shared, forward, lambda p: losses_of.losses((p, specific), inputs))

    return probe


def make_telemetry(probe: Probe) -> Callable[[TrainState, PyTree, Batch], dict[str, Array]]:
    """Returns `measure(state, params, batch) -> measurements`: pure, to be jitted or vmapped.

    `params` are the parameters some updates after `state`; they determine the direction of the
    curvature. The result is that of `describe_gramian`, plus `curvature`.
    """

    def measure(state: TrainState, params: PyTree, batch: Batch) -> dict[str, Array]:
        shared, forward, sums = probe(state, batch)
        present = forward.counts > 0
        scale = jnp.where(present, 1 / jnp.where(present, forward.counts, 1), 0)
        products = gramian(task_gradients(forward, "parameters"))
        after = flatten(params)
        update = {path: after[path] - before for path, before in shared.items()}
        measurements = describe_gramian(scale[:, None] * products * scale[None, :], present)
        loss = lambda p: (scale * sums(p)).sum()
        return {**measurements, "curvature": curvature(loss, shared, update)}

    return measure


def curvature(
    loss: Callable[[PyTree], Float[Array, ""]], params: PyTree, update: PyTree
) -> Float[Array, ""]:
    """Returns the second derivative along the normalized update, u' H u / u' u; 0 for u = 0.

    Positive if the slope of the loss increases along the update. Computed in forward mode: about
    four passes, without stored activations.
    """
    length = optax.tree.norm(update)
    direction = jax.tree.map(lambda x: x / jnp.maximum(length, TINY), update)
    slope = lambda p: jax.jvp(loss, (p,), (direction,))[1]
    with forward_mode(True):
        return jax.jvp(slope, (params,), (direction,))[1]


def describe_gramian(products: Float[Array, "T T"], present: Bool[Array, " T"]) -> dict[str, Array]:
    """Returns properties of the task gradients from their Gramian; absent tasks are left out.

    Returns:
      `gramian` [T, T]; `cosine` [T, T], 0 if a task is absent; `magnitude_similarity` [T, T],
      2 |a| |b| / (|a|^2 + |b|^2), which is 1 for equal norms; `conflicting`, the fraction of pairs
      of tasks with a negative cosine; `mean_cosine` and `mean_magnitude_similarity`, over pairs;
      `condition`, the largest singular value of the gradients over the smallest, at most 1e4 in
      float32.

    References:
      Yu et al., 2020, arXiv:2001.06782 (conflict, magnitude similarity); Senushkin et al., 2023,
      arXiv:2305.19000 (condition number)
    """
    size = len(present)
    both = present[:, None] & present[None, :]
    products = jnp.where(both, products, 0.0)
    square = jnp.diagonal(products)
    norms = jnp.sqrt(jnp.maximum(square, 0.0))
    outer = norms[:, None] * norms[None, :]
    cosine = jnp.where(both, jnp.clip(products / jnp.maximum(outer, TINY), -1.0, 1.0), 0.0)
    similarity = 2 * outer / jnp.maximum(square[:, None] + square[None, :], TINY)
    first, second = map(jnp.array, zip(*itertools.combinations(range(size), 2), strict=True))
    counted = both[first, second]
    pairs = jnp.maximum(counted.sum(), 1)
    over_pairs = lambda values: jnp.where(counted, values[first, second], 0.0).sum() / pairs
    eigen = jnp.linalg.eigvalsh(products)
    smallest = jnp.min(jnp.where(jnp.arange(size) >= size - present.sum(), eigen, jnp.inf))
    ratio = eigen[-1] / jnp.maximum(smallest, 1e-8 * jnp.maximum(eigen[-1], TINY))
    return {
        "gramian": products,
        "cosine": cosine,
        "magnitude_similarity": similarity,
        "conflicting": over_pairs((cosine < 0).astype(jnp.float32)),
        "mean_cosine": over_pairs(cosine),
        "mean_magnitude_similarity": over_pairs(similarity),
        "condition": jnp.sqrt(ratio),
    }
