"""Collectives over the named axis of `jax.pmap` or `jax.shard_map`, and over that of `vmap`."""

import dataclasses
from collections.abc import Sequence

import jax
from jaxtyping import Array, Bool, Int, PyTree


@dataclasses.dataclass(frozen=True)
class Axis:
    """Named mapped axis over which a batch is sharded (data parallelism).

    None: no mapped axis, as on one device or under plain `jax.jit`, also over a mesh. The methods
    then return their argument.
    """

    name: str | None = None
    """Name of the axis."""

    def psum(self, tree: PyTree) -> PyTree:
        """Sums over the devices."""
        return tree if self.name is None else jax.lax.psum(tree, self.name)

    def all_gather(self, tree: PyTree, axis: int = 0) -> PyTree:
        """Concatenates the shards of all devices along `axis`."""
        if self.name is None:
            return tree
        return jax.lax.all_gather(tree, self.name, axis=axis, tiled=True)

    def local_shard(self, tree: PyTree) -> PyTree:
        """Returns this device's shard along the first axis: the inverse of `all_gather`."""
        if self.name is None:
            return tree

        def shard(x: Array) -> Array:
            size = x.shape[0] // jax.lax.axis_size(self.name)
            return jax.lax.dynamic_slice_in_dim(x, self.index() * size, size)

        return jax.tree.map(shard, tree)

    def index(self) -> int | Int[Array, ""]:
        """Index of this device along the axis."""
        return 0 if self.name is None else jax.lax.axis_index(self.name)


def any_of_vmap(condition: Bool[Array, ""]) -> Bool[Array, ""]:
    """The condition; under `vmap`, one value for the batch: True if it is for any element.

    A `cond` on the result remains one under `vmap`. A `cond` on a batched condition becomes a
    selection, which computes both branches.
    """
    return _any_of_vmap(condition)


@jax.custom_batching.custom_vmap
def _any_of_vmap(condition: Bool[Array, ""]) -> Bool[Array, ""]:
    return condition


@_any_of_vmap.def_vmap
def _any_of_batch(
    size: int, batched: Sequence[bool], condition: Bool[Array, "..."]
) -> tuple[Bool[Array, ""], bool]:
    return (any_of_vmap(condition.any(0)) if batched[0] else condition), False
