"""Shardings of parameters over the mesh, selected by name."""

import dataclasses
import functools
import math
import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol

import jax
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, PyTree

from mtljax.utils.registry import choose
from mtljax.utils.tree import flatten

BATCH_AXIS, MODEL_AXIS = "batch", "model"
"""Names of the mesh axes: batches are sharded over the first."""
Shape = tuple[int, ...]
"""Shape of a parameter."""
Axes = tuple[str | tuple[str, ...] | None, ...]
"""Mesh axes, if any, over which each axis of an array is sharded."""


class ParameterSharding(Protocol):
    """Rule from the path and shape of a parameter to the mesh axes that it is sharded over."""

    @property
    def model(self) -> int:
        """Size of the mesh axis `MODEL_AXIS`."""

    def stored(self, path: str, shape: Shape, sizes: Mapping[str, int]) -> Axes:
        """Returns the axes of the parameter between steps; `sizes` are those of the mesh axes."""

    def used(self, path: str, shape: Shape, sizes: Mapping[str, int]) -> Axes:
        """Returns the axes of the parameter in a forward pass."""


@dataclasses.dataclass(frozen=True)
class Replicated:
    """Parameters and optimizer state are on every device; only batches are sharded."""

    model: int = dataclasses.field(default=1, init=False)
    """Devices that compute one example: 1."""

    def stored(self, path: str, shape: Shape, sizes: Mapping[str, int]) -> Axes:
        """Returns (): on every device."""
        return ()

    def used(self, path: str, shape: Shape, sizes: Mapping[str, int]) -> Axes:
        """Returns (): on every device."""
        return ()


@dataclasses.dataclass(frozen=True)
class FSDP:
    """Fully sharded data parallelism: parameters, optimizer state and task gradients are sharded.

    Each array is sharded along its largest axis that the number of devices divides, and gathered
    where a forward or backward pass uses it.

    Attributes:
      model: Devices that compute one example: 1.
      min_size: Smallest number of elements of a sharded array; smaller arrays are replicated.

    References:
      Rajbhandari et al., 2019, arXiv:1910.02054 (ZeRO, stage 3)
    """

    min_size: int = 2**14
    model: int = dataclasses.field(default=1, init=False)

    def __post_init__(self) -> None:
        require_positive("fsdp", "min_size", self.min_size)

    def stored(self, path: str, shape: Shape, sizes: Mapping[str, int]) -> Axes:
        """Returns the batch axis at the largest axis that it divides."""
        return sharded_axes(shape, (None,) * len(shape), (BATCH_AXIS,), sizes, self.min_size)

    def used(self, path: str, shape: Shape, sizes: Mapping[str, int]) -> Axes:
        """Returns (): gathered on every device."""
        return ()


@dataclasses.dataclass(frozen=True)
class FSDPTensor:
    """`fsdp` with tensor parallelism in the blocks of vision transformers.

    Devices form a mesh of groups x `model`. A group shares the examples of its batch part: each of
    its devices computes a part of the hidden layer of each perceptron, and of the attention heads.
    Arrays are stored in shards over all devices.

    Attributes:
      model: Devices per group; divides the number of devices, heads and channels.
      min_size: As for `fsdp`.

    References:
      Shoeybi et al., 2019, arXiv:1909.08053 (tensor parallelism)
    """

    model: int
    min_size: int = 2**14

    def __post_init__(self) -> None:
        require_positive("fsdp_tensor", "model", self.model)
        require_positive("fsdp_tensor", "min_size", self.min_size)

    def stored(self, path: str, shape: Shape, sizes: Mapping[str, int]) -> Axes:
        """Returns the axes of tensor parallelism, or else all mesh axes at the largest axis."""
        axes = self.used(path, shape, sizes)
        if any(axes):
            return sharded_axes(shape, axes, (BATCH_AXIS,), sizes, self.min_size)
        over = tuple(name for name in (BATCH_AXIS, MODEL_AXIS) if name in sizes)
        return sharded_axes(shape, (None,) * len(shape), over, sizes, self.min_size)

    def used(self, path: str, shape: Shape, sizes: Mapping[str, int]) -> Axes:
        """Returns the model axis for the kernels of `TENSOR_AXES`, else no axis."""
        axis = next((axis for name, axis in TENSOR_AXES.items() if re.search(name, path)), None)
        if self.model == 1 or axis is None or shape[axis] % self.model:
            return (None,) * len(shape)
        return tuple(MODEL_AXIS if i == axis else None for i in range(len(shape)))


TENSOR_AXES = {
    r"/block_\d+/Dense_0/kernel$": 1,
    r"/block_\d+/Dense_0/bias$": 0,
    r"/block_\d+/Dense_1/kernel$": 0,
    r"/block_\d+/attention/out/kernel$": 0,
}
"""Pattern of the paths of parameters of `mtljax.models.vit` -> axis that tensor parallelism shards.

Not `qkv`, whose columns are not grouped by head: each device computes those of its heads from the
entire kernel."""


def sharded_axes(
    shape: Shape, axes: Axes, over: tuple[str, ...], sizes: Mapping[str, int], min_size: int
) -> Axes:
    """Returns `axes` with the largest remaining axis of the array that can be sharded `over`.

    Returns them unchanged if no axis can be divided or the array is smaller than `min_size`.
    """
    count, size = math.prod(sizes[name] for name in over), math.prod(shape)
    possible = [i for i, length in enumerate(shape) if axes[i] is None and length % count == 0]
    if count == 1 or size < min_size or not possible:
        return axes
    best = max(possible, key=lambda i: shape[i])
    return (*axes[:best], over[0] if len(over) == 1 else over, *axes[best + 1 :])


def require_positive(kind: str, name: str, value: int) -> None:
    """Raises ValueError for an argument of a sharding below 1."""
    if value < 1:
        raise ValueError(f"{kind}: {name} must be >= 1, not {value}")


SHARDINGS: dict[str, Callable[..., ParameterSharding]] = {
    "replicated": Replicated,
    "fsdp": FSDP,
    "fsdp_tensor": FSDPTensor,
}
"""Name -> rule."""


def make_sharding(text: str) -> ParameterSharding:
    """Creates a sharding from text such as `fsdp:min_size=1000`.

    Raises:
      ValueError: The name or an argument is unknown or invalid.
    """
    return choose("sharding", text, SHARDINGS).build()


class Constraints(NamedTuple):
    """Placement of parameters inside a jitted step, as functions from a pytree to a pytree.

    Leaves are parameters, or rows of gradients, under the paths of the parameters. The functions
    change where arrays are, not their values; by default they have no effect.
    """

    gather: Callable[[PyTree], PyTree] = lambda params: params
    """Places parameters as forward and backward passes use them."""
    shard: Callable[[PyTree], PyTree] = lambda params: params
    """Places parameters, or a gradient, as they are stored."""
    shard_rows: Callable[[PyTree], PyTree] = lambda rows: rows
    """Places rows of gradients, with leaves [R, ...], as the parameters are stored."""
    devices: int = 1
    """Devices that batches are sharded over."""


def make_constraints(mesh: Mesh, sharding: ParameterSharding) -> Constraints:
    """Returns the constraints that keep arrays in a sharding; none for replicated parameters."""
    sizes = dict(mesh.shape)
    devices = sizes[BATCH_AXIS]
    if isinstance(sharding, Replicated) or mesh.size == 1:
        return Constraints(devices=devices)
    place = lambda x, axes: jax.lax.with_sharding_constraint(
        x, NamedSharding(mesh, PartitionSpec(*axes))
    )
    used = lambda path, x: place(x, sharding.used(path, x.shape, sizes))
    stored = lambda path, x: place(x, sharding.stored(path, x.shape, sizes))
    rows = lambda path, x: place(x, (None, *sharding.stored(path, x.shape[1:], sizes)))
    gather, shard, shard_rows = (functools.partial(_map, f) for f in (used, stored, rows))
    return Constraints(gather, shard, shard_rows, devices)


def _map(function: Callable[[str, Array], Any], tree: PyTree) -> PyTree:
    """Maps leaves with their paths."""
    leaves = [function(path, leaf) for path, leaf in flatten(tree).items()]
    return jax.tree.unflatten(jax.tree.structure(tree), leaves)


def state_shardings(
    state: PyTree, params: PyTree, mesh: Mesh, sharding: ParameterSharding
) -> PyTree[NamedSharding]:
    """Returns the sharding of each array of a state.

    An array whose path ends with the path of a parameter, and whose last axes are those of this
    parameter, is sharded like the parameter: the parameter itself, its average and moments, and
    rows of its gradients. Other arrays are replicated.

    Raises:
      ValueError: No parameter uses the axis `MODEL_AXIS` of the mesh.
    """
    shapes = {path: leaf.shape for path, leaf in flatten(params).items()}
    sizes = dict(mesh.shape)
    used = (any(sharding.used(path, shape, sizes)) for path, shape in shapes.items())
    if sharding.model > 1 and not any(used):
        raise ValueError(
            f"sharding fsdp_tensor: no block of a vision transformer has channels that "
            f"model={sharding.model} divides; use fsdp"
        )

    def place(path: str, x: Array) -> NamedSharding:
        while path and path not in shapes:
            path = path.partition("/")[2]
        shape = shapes.get(path)
        if shape is None or x.shape[len(x.shape) - len(shape) :] != shape:
            return NamedSharding(mesh, PartitionSpec())
        lead = (None,) * (len(x.shape) - len(shape))
        return NamedSharding(mesh, PartitionSpec(*lead, *sharding.stored(path, shape, sizes)))

    return _map(place, state)
