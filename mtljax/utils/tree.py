"""Nested data by path: `params/fusion/trunk_0/stem/kernel`."""

from collections.abc import Iterable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import unflatten_dict
from jaxtyping import PyTree

from mtljax.utils.registry import nearest


def flatten(tree: PyTree, separator: str = "/") -> dict[str, PyTree]:
    """Leaves of a pytree by path, in the order of `jax.tree.leaves`.

    Example:
      >>> flatten({"digit": {"output": 1.0, "prediction": {"class": 2}}})
      {'digit/output': 1.0, 'digit/prediction/class': 2}
    """
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    name = lambda path: jax.tree_util.keystr(path, simple=True, separator=separator)
    return {name(path): leaf for path, leaf in leaves}


def num_examples(tree: PyTree) -> int:
    """Length of the first axis of the arrays of a pytree."""
    return int(np.shape(jax.tree.leaves(tree)[0])[0])


def unflatten(leaves: Mapping[str, Any], separator: str = "/") -> dict[str, PyTree]:
    """Inverse of `flatten` for nested dicts."""
    return unflatten_dict(dict(leaves), sep=separator)


def as_tuples(value: Any) -> Any:
    """Returns a value with tuples in place of lists, which cannot be hashed."""
    return tuple(map(as_tuples, value)) if type(value) in (list, tuple) else value


def flatten_json(value: Any, separator: str = ".") -> dict[str, Any]:
    """Leaves of nested JSON by path, in their order.

    Unlike a pytree, JSON keeps null, and a list of plain values is one leaf.

    Example:
      >>> flatten_json({"steps": 7, "data": {"size": [8, 8], "drop": None}})
      {'steps': 7, 'data.size': [8, 8], 'data.drop': None}
    """
    items: Iterable[tuple[Any, Any]] = value.items() if isinstance(value, Mapping) else ()
    if isinstance(value, (list, tuple)) and any(isinstance(x, (Mapping, list)) for x in value):
        items = enumerate(value)
    if not items:
        return {"": value}
    return {
        f"{key}{separator}{path}" if path else f"{key}": leaf
        for key, inner in items
        for path, leaf in flatten_json(inner, separator).items()
    }


def replaced(variables: Mapping[str, PyTree], initial: Mapping[str, PyTree]) -> dict[str, PyTree]:
    """Returns the variables with the values of `initial`, which may cover some of them only."""
    leaves = flatten(variables)
    for path, value in flatten(initial).items():
        if path not in leaves:
            raise ValueError(f"the model has no variable {path!r}{nearest(path, leaves)}")
        expected, shape = leaves[path].shape, np.shape(value)
        if expected != shape:
            raise ValueError(f"{path} has shape {list(expected)} in the model, not {list(shape)}")
        # A copy: an array that is given for two variables must not become one buffer.
        leaves[path] = jnp.array(value, leaves[path].dtype)
    return unflatten(leaves)
