"""A model's variables by path, across collections: `params/fusion/trunk_0/stem/kernel`."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict
from jaxtyping import PyTree

from mtljax.utils.registry import nearest


def flat(variables: Mapping[str, PyTree]) -> dict[str, Any]:
    """The leaves of all collections, each under `collection/path`."""
    return flatten_dict(dict(variables), sep="/")


def nested(leaves: Mapping[str, Any]) -> dict[str, PyTree]:
    """Undoes `flat`."""
    return unflatten_dict(dict(leaves), sep="/")


def by_name(tree: PyTree, separator: str = "/") -> dict[str, Any]:
    """The leaves of any tree by their path, in its order; empty nodes do not matter.

    Example:
      >>> by_name({"digit": {"output": 1.0, "prediction": {"class": 2}}})
      {'digit/output': 1.0, 'digit/prediction/class': 2}
    """
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    name = lambda path: jax.tree_util.keystr(path, simple=True, separator=separator)
    return {name(path): leaf for path, leaf in leaves}


def replaced(variables: Mapping[str, PyTree], initial: Mapping[str, PyTree]) -> dict[str, PyTree]:
    """The variables, with the values of `initial`, which may be of some of them only.

    Raises:
      ValueError: `initial` has a variable that is not there, or is of another shape.
    """
    leaves = flat(variables)
    for path, value in flat(initial).items():
        if path not in leaves:
            raise ValueError(f"the model has no variable {path!r}{nearest(path, leaves)}")
        here, given = leaves[path].shape, np.shape(value)
        if here != given:
            raise ValueError(f"{path} has shape {list(here)} in the model, not {list(given)}")
        # A copy: one array that is given for two variables must not become one buffer.
        leaves[path] = jnp.array(value, leaves[path].dtype)
    return nested(leaves)
