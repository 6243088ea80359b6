"""Splitting of a batch into microbatches, and the loop over them."""

from collections.abc import Callable

import jax
from jaxtyping import Array, PyTree


def split_batch(tree: PyTree, parts: int, axis: int = 0) -> PyTree:
    """Moves K = `parts` microbatches to a new first axis: [B, ...] -> [K, B / K, ...].

    With axis 1, [R, B, ...] -> [K, R, B / K, ...]. Example i is in microbatch i mod K, so that
    every microbatch has examples of all devices.
    """

    def split(x: Array) -> Array:
        if x.shape[0] % parts:
            size = x.shape[0]
            raise ValueError(f"a batch of {size} cannot be split into {parts} equal microbatches")
        return x.reshape(x.shape[0] // parts, parts, *x.shape[1:]).swapaxes(0, 1)

    return jax.tree.map(split if axis == 0 else jax.vmap(split, 0, 1), tree)


def merge_rows(tree: PyTree[Array]) -> PyTree[Array]:
    """Inverse of `split_batch` with axis 1: [K, R, B / K, ...] -> [R, B, ...]."""
    merge = lambda x: x.swapaxes(0, 1).reshape(-1, *x.shape[2:])
    return jax.tree.map(lambda x: jax.vmap(merge, 1, 0)(x), tree)


def scan(body: Callable, carry: PyTree, parts: PyTree) -> tuple[PyTree, PyTree]:
    """`lax.scan`, unrolled on CPU, where `nn.Conv` in a loop is many times slower."""
    return jax.lax.scan(body, carry, parts, unroll=jax.default_backend() == "cpu")
