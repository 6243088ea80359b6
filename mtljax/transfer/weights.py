"""Conversion of weights from the names of PyTorch libraries to those of mtljax."""

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import flax.linen as nn
import numpy as np

from mtljax.transfer.torch_names import CLASSIFIER, FAMILIES, Family

NATIVE = "params/"
"""Prefix of the names of mtljax."""
LEAVES = {
    **{"weight": ("params", "kernel"), "bias": ("params", "bias")},
    **{"running_mean": ("batch_stats", "mean"), "running_var": ("batch_stats", "var")},
}
"""Array of a PyTorch layer -> collection and name in Flax; a weight vector is named `scale`."""
COUNTER = "num_batches_tracked"
"""Step counter of PyTorch's batch normalization, which evaluation does not read."""
AXES = {4: (2, 3, 1, 0), 2: (1, 0)}
"""Number of axes of a kernel -> permutation from PyTorch to Flax (inputs and outputs last)."""


class StoredWeights(NamedTuple):
    """Content of a file or a run folder, with its original names."""

    source: str
    """Path, for messages."""
    arrays: Mapping[str, np.ndarray]
    """Original name -> array."""
    low: float | None = None
    """Value of black in the training images; None: unknown."""
    high: float | None = None
    """Value of white in the training images; None: unknown."""


class Weights(NamedTuple):
    """Weights with the names of an mtljax model with the fusion `none`."""

    source: str
    """Path, for messages."""
    library: str
    """Library that defines the original names."""
    arrays: dict[str, np.ndarray]
    """Name -> array."""
    original: dict[str, str]
    """Name -> name in the file."""
    unknown: tuple[str, ...]
    """Names in the file without an equivalent."""
    low: float | None
    """Value of black in the training images; None: unknown."""
    high: float | None
    """Value of white in the training images; None: unknown."""


def to_mtljax_names(stored: StoredWeights, trunk: Sequence[nn.Module]) -> Weights:
    """Converts weights with the names of mtljax or of one of `FAMILIES` to the names of mtljax.

    Raises:
      ValueError: The names are unknown, or belong to another kind of trunk than `trunk`, the stages
        to initialize.
    """
    if any(name.startswith(NATIVE) for name in stored.arrays):
        arrays = dict(stored.arrays)
        identity = {name: name for name in arrays}
        return Weights(stored.source, "mtljax", arrays, identity, (), stored.low, stored.high)
    families = FAMILIES.get(type(trunk[0]), ()) if trunk else ()
    family = next((family for family in families if family.signature in stored.arrays), None)
    if family is None:
        raise ValueError(_mismatch(stored))
    original = dict(_pairs(family, trunk, stored.arrays))
    arrays = {name: _to_flax(name, stored.arrays[torch]) for name, torch in original.items()}
    arrays["constants/mean"] = np.asarray(family.mean)
    arrays["constants/std"] = np.asarray(family.std)
    used = set(original.values())
    unknown = tuple(name for name in stored.arrays if name not in used and COUNTER not in name)
    return Weights(stored.source, family.library, arrays, original, unknown, 0.0, family.white)


def _pairs(
    family: Family, trunk: Sequence[nn.Module], arrays: Mapping[str, np.ndarray]
) -> Iterator[tuple[str, str]]:
    """Yields (name, name in the file) of all arrays of a family."""
    for module, torch_module in family.names(trunk).items():
        path = module if module == CLASSIFIER else f"fusion/{module}"
        if torch_module in arrays:
            yield f"params/{path}", torch_module
        for torch_leaf, (collection, leaf) in LEAVES.items():
            torch_name = f"{torch_module}.{torch_leaf}"
            if torch_name in arrays:
                is_scale = leaf == "kernel" and arrays[torch_name].ndim == 1
                yield f"{collection}/{path}/{'scale' if is_scale else leaf}", torch_name


def _to_flax(name: str, array: np.ndarray) -> np.ndarray:
    axes = AXES.get(array.ndim) if name.endswith("/kernel") else None
    return array.transpose(axes) if axes else array


def _mismatch(stored: StoredWeights) -> str:
    """Returns the error message for names that do not fit the trunk."""
    families = [family for families in FAMILIES.values() for family in families]
    for family in families:
        if family.signature in stored.arrays:
            return (
                f"{stored.source} has weights of another trunk, with names of {family.library} "
                f"({family.signature}); choose --trunk {family.trunks}"
            )
    examples = ", ".join(list(stored.arrays)[:3]) or "none"
    known = ", ".join(dict.fromkeys(family.library for family in families))
    return (
        f"{stored.source} has unknown names ({examples}); supported are the names of mtljax, and "
        f"of {known} for their trunks"
    )


def module_of(name: str) -> str:
    """Returns the module of a variable with a name of mtljax or PyTorch.

    Example:
      >>> module_of("params/task_digit/Dense_0/kernel"), module_of("layer1.0.conv1.weight")
      ('task_digit/Dense_0', 'layer1.0.conv1')
    """
    if "/" in name:
        return "/".join(name.split("/")[1:-1]) or name
    return name.rpartition(".")[0] or name
