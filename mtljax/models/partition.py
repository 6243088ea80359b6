"""Which parameters are shared, which belong to one task, and where the shared representation is."""

from collections.abc import Mapping

import flax.linen as nn
from jaxtyping import Array, Float, PyTree

from mtljax.utils.tree import flat, nested

Flat = dict[str, Array]
"""Parameters by path: {"fusion/trunk_0/Dense_0/kernel": ...}."""

PREFIX = "task_"
PERTURBATIONS = "perturbations"
REPRESENTATION = "representation"
"""Collections of a model's variables while `level="features"` looks at it."""
OF_A_BATCH = (PERTURBATIONS, REPRESENTATION)
"""They are of one batch: `model.init` gives them too, and no state keeps them."""


def task_of(path: str) -> str | None:
    """The task that owns the parameter at `path`, or None if it is shared.

    A parameter is task-specific exactly if a module on its path is named `task_<name>`; only that
    task's loss may depend on it.

    Example:
      >>> task_of("task_digit/Dense_0/kernel"), task_of("fusion/trunk_0/Dense_0/kernel")
      ('digit', None)
    """
    for part in path.split("/"):
        if part.startswith(PREFIX):
            return part[len(PREFIX) :]
    return None


def partition(params: Mapping) -> tuple[Flat, Flat]:
    """(shared, task-specific) parameters, each flat by path."""
    leaves = flat(params)
    shared = {path: leaf for path, leaf in leaves.items() if task_of(path) is None}
    specific = {path: leaf for path, leaf in leaves.items() if task_of(path) is not None}
    return shared, specific


def join(*parts: Flat) -> dict:
    """The parameter tree again: the inverse of `partition`. Of a path in several, the last."""
    return nested({path: leaf for part in parts for path, leaf in part.items()})


def mark_representation(
    module: nn.Module, features: PyTree[Float[Array, "B ..."]]
) -> PyTree[Float[Array, "B ..."]]:
    """Call on the last features that every task's loss goes through, and go on with the result.

    The value is unchanged. It is what `level="features"` takes gradients with respect to. A model
    calls this at most once; one without such a point does not, and that level is then refused.

    Example, in a module of your own:
      >>> class Net(nn.Module):
      ...     @nn.compact
      ...     def __call__(self, image, *, train):
      ...         x = mark_representation(self, nn.Dense(32)(image.reshape(len(image), -1)))
      ...         return {"digit": nn.Dense(10, name="task_digit")(x)}
    """
    features = module.perturb("marked", features, PERTURBATIONS)
    last = lambda _, new: new
    module.sow(REPRESENTATION, "marked", features, init_fn=lambda: None, reduce_fn=last)
    return features
