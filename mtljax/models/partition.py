"""Partition of parameters into shared and task-specific, and the shared representation."""

from collections.abc import Callable, Mapping

import flax.linen as nn
from jaxtyping import Array, Float, PyTree

from mtljax.utils.tree import flatten, unflatten

Flat = dict[str, Array]
"""Parameters by path: {"fusion/trunk_0/Dense_0/kernel": ...}."""

TASK_PREFIX = "task_"
"""Prefix of the names of task-specific modules."""
PERTURBATIONS = "perturbations"
"""Collection of the perturbations of the representation."""
REPRESENTATION = "representation"
"""Collection of the representation."""
TRANSIENT_COLLECTIONS = (PERTURBATIONS, REPRESENTATION)
"""Collections for `level="features"`. They belong to one batch: `model.init` returns them, and the
train state does not contain them."""
OVERWRITE: dict[str, Callable] = {"init_fn": lambda: None, "reduce_fn": lambda _, new: new}
"""Arguments of `nn.Module.sow` that keep the latest value instead of a tuple of all values."""


def task_of(path: str) -> str | None:
    """Task that owns the parameter at `path`, or None if the parameter is shared.

    One in a module `task_<name>` is task-specific: no other task's loss may depend on it.

    Example:
      >>> task_of("task_digit/Dense_0/kernel"), task_of("fusion/trunk_0/Dense_0/kernel")
      ('digit', None)
    """
    for part in path.split("/"):
        if part.startswith(TASK_PREFIX):
            return part[len(TASK_PREFIX) :]
    return None


def partition(params: Mapping) -> tuple[Flat, Flat]:
    """Splits parameters into (shared, task-specific), each flat by path."""
    leaves = flatten(params)
    shared = {path: leaf for path, leaf in leaves.items() if task_of(path) is None}
    specific = {path: leaf for path, leaf in leaves.items() if task_of(path) is not None}
    return shared, specific


def join(*parts: Flat) -> dict:
    """Parameter tree of flat parts, the inverse of `partition`; later parts take precedence."""
    return unflatten({path: leaf for part in parts for path, leaf in part.items()})


def mark_representation(
    module: nn.Module, features: PyTree[Float[Array, "B ..."]]
) -> PyTree[Float[Array, "B ..."]]:
    """Marks the shared representation, and returns it unchanged.

    `level="features"` takes gradients with respect to it. A model calls this at most once, on the
    last features that the losses of all tasks depend on, and continues with the returned value. A
    model without such a point does not support that level.

    Example, in a custom module:
      >>> class Net(nn.Module):
      ...     @nn.compact
      ...     def __call__(self, image, *, train):
      ...         x = mark_representation(self, nn.Dense(32)(image.reshape(len(image), -1)))
      ...         return {"digit": nn.Dense(10, name="task_digit")(x)}
    """
    features = module.perturb("marked", features, PERTURBATIONS)
    module.sow(REPRESENTATION, "marked", features, **OVERWRITE)
    return features
