"""Weights by our names, whatever the names were in the file that they are from."""

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import flax.linen as nn
import numpy as np

from mtljax.transfer.torch_names import FAMILIES, HEAD, Family

OWN = "params/"
"""What our own names begin with."""
LEAVES = {
    "weight": ("params", "kernel"),
    "bias": ("params", "bias"),
    "running_mean": ("batch_stats", "mean"),
    "running_var": ("batch_stats", "var"),
}
"""PyTorch's name of a layer's array -> collection and our name; for vectors of weights `scale`."""
COUNTER = "num_batches_tracked"
"""PyTorch's batch normalisation counts its steps, which evaluation does not read."""
AXES = {4: (2, 3, 1, 0), 2: (1, 0)}
"""Order in which PyTorch's kernels have our axes: inputs and outputs last."""


class Stored(NamedTuple):
    """What a file or a run folder holds, by the names that it has there."""

    where: str
    """For messages."""
    arrays: Mapping[str, np.ndarray]
    low: float | None = None
    high: float | None = None
    """Black and white of the images that it was trained on; None: not known."""


class Weights(NamedTuple):
    """The same by our names, as a model with the fusion `none` has them."""

    where: str
    library: str
    """Whose names they had."""
    arrays: dict[str, np.ndarray]
    original: dict[str, str]
    """Our name -> that in the file."""
    unknown: tuple[str, ...]
    """Names in the file for which there is none of ours."""
    low: float | None
    high: float | None


def by_our_names(stored: Stored, trunk: Sequence[nn.Module]) -> Weights:
    """The weights by our names.

    Args:
      stored: With our own names, or those of one of `FAMILIES`.
      trunk: The stages that they are for.

    Raises:
      ValueError: The names are not known, or those of another kind of trunk.
    """
    if any(name.startswith(OWN) for name in stored.arrays):
        arrays = dict(stored.arrays)
        same = {name: name for name in arrays}
        return Weights(stored.where, "mtljax", arrays, same, (), stored.low, stored.high)
    families = FAMILIES.get(type(trunk[0]), ()) if trunk else ()
    family = next((family for family in families if family.telltale in stored.arrays), None)
    if family is None:
        raise ValueError(_mismatch(stored))
    original = dict(_pairs(family, trunk, stored.arrays))
    arrays = {ours: _array(ours, stored.arrays[theirs]) for ours, theirs in original.items()}
    arrays["constants/mean"] = np.asarray(family.mean)
    arrays["constants/std"] = np.asarray(family.std)
    used = set(original.values())
    unknown = tuple(name for name in stored.arrays if name not in used and COUNTER not in name)
    return Weights(stored.where, family.library, arrays, original, unknown, 0.0, family.white)


def _pairs(
    family: Family, trunk: Sequence[nn.Module], arrays: Mapping[str, np.ndarray]
) -> Iterator[tuple[str, str]]:
    """(our name, theirs) of all arrays that a family knows."""
    for ours, theirs in family.names(trunk).items():
        path = ours if ours == HEAD else f"fusion/{ours}"
        if theirs in arrays:
            yield f"params/{path}", theirs
        for leaf, (collection, own) in LEAVES.items():
            name = f"{theirs}.{leaf}"
            if name in arrays:
                own = "scale" if own == "kernel" and arrays[name].ndim == 1 else own
                yield f"{collection}/{path}/{own}", name


def _array(ours: str, theirs: np.ndarray) -> np.ndarray:
    if not ours.endswith("/kernel"):
        return theirs
    return theirs.transpose(AXES.get(theirs.ndim, range(theirs.ndim)))


def _mismatch(stored: Stored) -> str:
    """What to say of names that do not fit the trunk."""
    for family in (family for families in FAMILIES.values() for family in families):
        if family.telltale in stored.arrays:
            return (
                f"{stored.where} has weights of another trunk, named as {family.library} does "
                f"({family.telltale}); choose --trunk {family.trunks}"
            )
    some = ", ".join(list(stored.arrays)[:3]) or "none"
    known = {family.library: None for families in FAMILIES.values() for family in families}
    return (
        f"{stored.where} has names that are not known ({some}); known are those of mtljax, "
        f"{', '.join(known)}, for their own trunks"
    )


def module_of(name: str) -> str:
    """What a variable belongs to, by our name or PyTorch's.

    Example:
      >>> module_of("params/task_digit/Dense_0/kernel"), module_of("layer1.0.conv1.weight")
      ('task_digit/Dense_0', 'layer1.0.conv1')
    """
    if "/" in name:
        return "/".join(name.split("/")[1:-1]) or name
    return name.rpartition(".")[0] or name
