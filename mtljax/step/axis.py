"""Named axis of a parallel map."""

import dataclasses
from typing import Any

import jax
from jaxtyping import PyTree


@dataclasses.dataclass(frozen=True)
class Axis:
    """The named axis of a `pmap` or `shard_map` that a batch is spread over; None: it is whole."""

    name: str | None = None

    def total(self, tree: PyTree) -> PyTree:
        """The sum over devices."""
        return tree if self.name is None else jax.lax.psum(tree, self.name)

    def gather(self, tree: PyTree, axis: int = 0) -> PyTree:
        """Parts of a batch, joined along `axis` to the whole."""
        if self.name is None:
            return tree
        return jax.lax.all_gather(tree, self.name, axis=axis, tiled=True)

    def own_part(self, tree: PyTree) -> PyTree:
        """This device's part of what is whole, along the first axis: undoes `gather`."""
        if self.name is None:
            return tree
        count = jax.lax.axis_size(self.name)

        def part(x: jax.Array) -> jax.Array:
            size = x.shape[0] // count
            return jax.lax.dynamic_slice_in_dim(x, self.index() * size, size)

        return jax.tree.map(part, tree)

    def index(self) -> Any:
        """The number of this device."""
        return 0 if self.name is None else jax.lax.axis_index(self.name)
