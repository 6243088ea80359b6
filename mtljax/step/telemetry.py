"""How the tasks' gradients agree, measured now and then beside any method's training.

It is a program of its own, so it costs every method the same and says the same of every method:
what the gradients of a batch with respect to the shared parameters are like before the step, and
how the losses curve along the way that the method then went.
"""

import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Bool, Float, PyTree

from mtljax.balancing.base import TINY, gramian
from mtljax.models.freezing import split_frozen
from mtljax.models.partition import Flat, partition
from mtljax.step.axis import Axis
from mtljax.step.distillation import Distillation
from mtljax.step.objective import Forward, Objective, task_rows
from mtljax.step.state import TrainState
from mtljax.step.train_step import example_keys
from mtljax.tasks.base import Task
from mtljax.utils.tree import flatten

SUMMARY = ("conflicting", "mean_cosine", "mean_magnitude_similarity", "condition", "curvature")
"""What is a single number, and so has a mean over training."""


def summary(measured: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Means over training; the geometric one of the condition number."""
    found = {}
    for name in SUMMARY:
        values = np.array([told[name] for told in measured if name in told], float)
        values = values[np.isfinite(values)]
        if len(values):
            by_log = name == "condition"
            found[name] = float(np.exp(np.log(values).mean()) if by_log else values.mean())
    return found


class ProbePoint(NamedTuple):
    """The losses of a batch as a step sees them, as a function of the shared parameters."""

    shared: Flat
    """Those of the state that learn."""
    forward: Forward
    """At `shared`."""
    sums: Callable[[Flat], Float[Array, " T"]]
    """Each task's losses of the same batch, added up, at other shared parameters."""


def make_probe(
    model: nn.Module,
    tasks: Sequence[Task],
    *,
    dtype: Any = None,
    augment: Callable[[jax.Array, Mapping[str, Any]], Mapping[str, Any]] | None = None,
    freeze: Sequence[str] = (),
    freeze_statistics: bool = False,
    distill: Distillation | None = None,
) -> Callable[[TrainState, Mapping[str, Any]], ProbePoint]:
    """Makes `probe(state, batch) -> ProbePoint`, for what is measured beside training.

    Args:
      model: See `mtljax.models`.
      tasks: T tasks, in the order of rows and columns.
      dtype: What the model computes in, as in `make_train_step`.
      augment: `(keys [B], batch) -> batch`, as in `make_train_step`.
      freeze, freeze_statistics, distill: As in `make_train_step`.
    """
    every = Objective(
        model, tuple(tasks), "parameters", 1, dtype, Axis(None), freeze_statistics, distill
    )

    def probe(state: TrainState, batch: Mapping[str, Any]) -> ProbePoint:
        key = jax.random.fold_in(state.key, state.step)
        augment_key, model_key, _ = jax.random.split(key, 3)
        if augment is not None:
            batch = augment(example_keys(augment_key, batch, every.axis), batch)
        learning, frozen = split_frozen(state.params, freeze)
        shared, specific = partition(learning)
        objective = every.given(frozen, state.teachers)
        rest = specific, state.model_state, batch, model_key
        return ProbePoint(
            shared=shared,
            forward=objective.forward(shared, *rest),
            sums=lambda there: objective.losses(there, *rest),
        )

    return probe


def make_telemetry(
    probe: Callable[[TrainState, Mapping[str, Any]], ProbePoint],
) -> Callable[[TrainState, PyTree, Mapping[str, Any]], dict[str, Array]]:
    """Makes `measure(state, params, batch) -> telemetry`: pure, to be jitted or vmapped.

    `params` are the parameters some updates after `state`, which say where the method went.

    Args:
      probe: Made by `make_probe`.

    Returns:
      The function. Its result is that of `describe`, and `curvature`.
    """

    def measure(state: TrainState, params: PyTree, batch: Mapping[str, Any]) -> dict[str, Array]:
        shared, forward, sums = probe(state, batch)
        present = forward.counts > 0
        scale = jnp.where(present, 1 / jnp.where(present, forward.counts, 1), 0)
        products = gramian(task_rows(forward, "parameters"))
        after = flatten(params)
        update = {path: after[path] - before for path, before in shared.items()}
        told = describe(scale[:, None] * products * scale[None, :], present)
        return {**told, "curvature": curvature(lambda p: scale @ sums(p), shared, update)}

    return measure


def curvature(
    loss: Callable[[PyTree], Float[Array, ""]], params: PyTree, update: PyTree
) -> Float[Array, ""]:
    """Second derivative of a loss along an update of length 1, u' H u / u' u; 0 if there is none.

    Positive where the loss rises more steeply, or falls less, the further one goes that way. It is
    taken forwards: about four passes, and no activation is kept.
    """
    length = optax.tree.norm(update)
    along = jax.tree.map(lambda x: x / jnp.maximum(length, TINY), update)
    slope = lambda p: jax.jvp(loss, (p,), (along,))[1]
    return jax.jvp(slope, (params,), (along,))[1]


def describe(products: Float[Array, "T T"], present: Bool[Array, " T"]) -> dict[str, Array]:
    """What a Gramian says of the tasks' gradients; absent tasks are left out.

    Returns:
      `gramian` [T, T]; `cosine` [T, T], 0 where a task is absent; `magnitude_similarity` [T, T],
      2 |a| |b| / (|a|^2 + |b|^2), which is 1 for equal norms; `conflicting`, the share of pairs of
      tasks whose gradients point apart (cosine below 0); `mean_cosine` and
      `mean_magnitude_similarity`, over pairs; `condition`, the largest singular value of the
      gradients over the smallest, at most 1e4 in float32.

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
