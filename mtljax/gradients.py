"""Per-task losses and gradients of one batch: the part of a step that costs something.

Data's way: `run_forward` (one forward pass) -> `task_rows` (a gradient per task, with respect to the
shared parameters or to the representation) -> the balancer, in `step.py` -> the pull-back again.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from mtljax.models.partition import PERTURBATIONS, REPRESENTATION, Flat, join
from mtljax.tasks.base import Task

Level = Literal["parameters", "features"]
Pullback = Literal["auto", "vmap", "loop"] | int
"""How the rows of the Jacobian are pulled back: all at once by `vmap`, one after the other, or in
chunks of so many; `auto` is what was measured to be fastest (see `rows_per_pull`)."""


class Gradients(NamedTuple):
    """What one pull-back gives: by shared parameter, by task-specific one, by representation."""

    shared: Flat
    specific: Flat
    representation: PyTree


class Forward(NamedTuple):
    """One forward pass, and the way back.

    `sums` and `counts` are the sum of each task's losses and their number.
    `pull(cotangents [T], representation=None)` gives the gradient of sum_t cotangents[t] * sums[t],
    with `representation` added to what arrives there; it is linear in both.
    """

    sums: Float[Array, " T"]
    counts: Float[Array, " T"]
    model_state: Mapping[str, PyTree]
    pull: Callable[..., Gradients]


def run_forward(
    model: nn.Module,
    tasks: Sequence[Task],
    shared: Flat,
    specific: Flat,
    model_state: Mapping[str, PyTree],
    batch: Mapping[str, Any],
    key: jax.Array,
    *,
    level: Level = "parameters",
    dtype: Any = None,
) -> Forward:
    """The losses of all tasks on one batch, in training mode, ready to be pulled back.

    Args:
      model: See `mtljax.models`.
      tasks: T tasks.
      shared, specific: Parameters, as `partition` splits them.
      model_state: The other collections of the model's variables.
      batch: `{"image", "labels", "present"}`.
      key: For dropout and the like.
      level: `features` also takes gradients with respect to the representation.
      dtype: Compute dtype of the model; parameters and losses stay float32. None: as they are.

    Raises:
      ValueError: `features` where the model marks no representation.
    """
    mutable = [name for name in model_state if name != "constants"]
    if level == "features":
        zeros = representation_zeros(model, shared, specific, model_state, batch["image"], dtype)
        mutable.append(REPRESENTATION)
    else:
        zeros = {}

    def losses(shared, specific, perturbation):
        variables = {"params": _cast(join(shared, specific), dtype), **model_state}
        if perturbation:
            variables[PERTURBATIONS] = perturbation
        outputs, changed = model.apply(
            variables,
            _cast(batch["image"], dtype),
            train=True,
            rngs={"dropout": key},
            mutable=mutable,
        )
        outputs = _cast(outputs, jnp.float32)
        sums, counts = _sums_and_counts(tasks, outputs, batch)
        changed = dict(changed)
        return (sums, changed.pop(REPRESENTATION, {})), (counts, changed)

    (sums, features), vjp, (counts, changed) = jax.vjp(
        losses, shared, specific, zeros, has_aux=True
    )

    def pull(cotangents, representation=None):
        if representation is None:
            representation = jax.tree.map(jnp.zeros_like, features)
        return Gradients(*vjp((cotangents, representation)))

    return Forward(sums, counts, {**model_state, **changed}, pull)


def task_rows(
    forward: Forward, level: Level, pullback: Pullback = "auto"
) -> PyTree[Float[Array, "T ..."]]:
    """A gradient per task, of the *sum* of its losses: nothing is divided by counts yet."""
    count = forward.sums.shape[0]
    wanted = "shared" if level == "parameters" else "representation"
    row = lambda cotangents: getattr(forward.pull(cotangents), wanted)
    size = rows_per_pull(count) if pullback == "auto" else pullback
    size = {"vmap": count, "loop": 1}.get(size, size)

    one_hot = jnp.eye(count)
    if size == 1:
        rows = [jax.tree.map(lambda x: x[None], row(cotangents)) for cotangents in one_hot]
    else:
        rows = [jax.vmap(row)(one_hot[start : start + size]) for start in range(0, count, size)]
    return jax.tree.map(lambda *leaves: jnp.concatenate(leaves), *rows)


def rows_per_pull(rows: int) -> int:
    """How many rows to pull back at once.

    On CPU a few at a time is fastest for convolutions, and small chunks keep the memory of many
    tasks down; accelerators are kept busy by all at once.
    """
    return min(rows, 4) if jax.default_backend() == "cpu" else rows


def representation_zeros(model, shared, specific, model_state, image, dtype=None):
    """Zeros like the model's representation, by path: what perturbs it without changing it."""

    def trace(params, image):
        _, collections = model.apply(
            {"params": _cast(params, dtype), **model_state},
            _cast(image, dtype),
            train=True,
            rngs={"dropout": jax.random.key(0)},
            mutable=[PERTURBATIONS, *(n for n in model_state if n != "constants")],
        )
        return collections.get(PERTURBATIONS, {})

    shapes = jax.eval_shape(trace, join(shared, specific), image)
    zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
    if not jax.tree.leaves(zeros):
        raise ValueError(
            "level='features' needs one point that all tasks' losses go through, and this model "
            "marks none (see mtljax.models.mark_representation); use level='parameters'"
        )
    return zeros


def _sums_and_counts(tasks, outputs, batch):
    pairs = [
        task.loss(outputs[task.name], batch["labels"][task.name], batch["present"][task.name])
        for task in tasks
    ]
    sums, counts = zip(*pairs, strict=True)
    return jnp.stack(sums).astype(jnp.float32), jnp.stack(counts).astype(jnp.float32)


def _cast(tree: PyTree, dtype: Any) -> PyTree:
    if dtype is None:
        return tree
    return jax.tree.map(
        lambda x: x.astype(dtype) if jnp.issubdtype(jnp.result_type(x), jnp.floating) else x, tree
    )
