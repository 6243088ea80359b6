"""Self-attention: the fused kernel of cuDNN where there is one, XLA's operations elsewhere."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from mtljax.models.cpu_ops import standard_ops

Tokens = Float[Array, "B N heads F"]
"""Queries, keys or values of each head."""

forward_mode = jax.make_user_context(False)
"""`with forward_mode(True):` traces operations that `jax.jvp` can differentiate. The value is part
of the key of `jax.jit`'s trace cache."""


def dot_product_attention(query: Tokens, key: Tokens, value: Tokens) -> Tokens:
    """Softmax attention, with scale 1 / sqrt(F) and the softmax in float32.

    On NVIDIA GPUs in 16 bits, the kernel of cuDNN computes it without storing the [N, N] weights,
    if the installed versions have one for these shapes.
    """
    if uses_cudnn(query):
        return _fused_attention(query, key, value)
    return jax.nn.dot_product_attention(query, key, value, implementation="xla")


def uses_cudnn(query: Tokens) -> bool:
    """True if self-attention of these queries is computed by cuDNN."""
    if standard_ops.value or forward_mode.value or jax.default_backend() != "gpu":
        return False
    is_half = query.dtype in (jnp.bfloat16, jnp.float16)
    return is_half and _is_supported((1, *query.shape[-3:]), query.dtype)


@functools.cache
def _is_supported(shape: tuple[int, ...], dtype: Any) -> bool:
    """True if cuDNN's kernel and its gradient compile for tokens of this shape."""
    tokens = jax.ShapeDtypeStruct(shape, dtype)
    total = lambda *tokens: _fused_attention(*tokens).astype(jnp.float32).sum()
    try:
        jax.jit(jax.grad(total, (0, 1, 2))).lower(tokens, tokens, tokens).compile()
    except Exception:  # the classes differ between versions of jaxlib, XLA and cuDNN
        return False
    return True


def _fused_attention(query: Tokens, key: Tokens, value: Tokens) -> Tokens:
    """Pads an odd number of tokens by one: JAX requires an even one for the kernel's gradient."""
    batch, count = query.shape[:2]
    if count % 2 == 0:
        return _mappable(query, key, value)
    padded = (jnp.pad(x, ((0, 0), (0, 1), (0, 0), (0, 0))) for x in (query, key, value))
    return _mappable(*padded, jnp.full(batch, count, jnp.int32))[:, :count]


def _kernel(
    query: Tokens, key: Tokens, value: Tokens, lengths: Int[Array, " B"] | None = None
) -> Tokens:
    """Attention of the first `lengths` tokens of each example."""
    options: dict[str, Any] = {"query_seq_lengths": lengths, "key_value_seq_lengths": lengths}
    return jax.nn.dot_product_attention(query, key, value, implementation="cudnn", **options)


@jax.custom_vjp
def _mappable(*arguments: Array) -> Tokens:
    """`_kernel`, which `jax.vmap` can map over some of the arguments or cotangents only."""
    return _kernel(*_mapped_alike(*arguments))


def _forward(*arguments: Array) -> tuple[Tokens, Any]:
    return jax.vjp(_kernel, *_mapped_alike(*arguments))


def _backward(pullback: Any, cotangent: Tokens) -> tuple[Array, ...]:
    leaves, tree = jax.tree.flatten(pullback)
    *leaves, cotangent = _mapped_alike(*leaves, cotangent)
    return jax.tree.unflatten(tree, leaves)(cotangent)


_mappable.defvjp(_forward, _backward)


@jax.custom_batching.custom_vmap
def _mapped_alike(*arrays: Array) -> tuple[Array, ...]:
    """Identity; under `jax.vmap`, all results are mapped along axis 0 if any argument is mapped.

    JAX's batching rules for the kernel need that, and the rows of a Jacobian are cotangents mapped
    over residuals that are not. Each row then has a copy of these.
    """
    return arrays


@_mapped_alike.def_vmap
def _(size: int, is_mapped: list[bool], *arrays: Array) -> tuple[tuple[Array, ...], tuple]:
    broadcast = lambda x, mapped: x if mapped else jnp.broadcast_to(x, (size, *x.shape))
    arrays = tuple(map(broadcast, arrays, is_mapped))
    return _mapped_alike(*arrays), (True,) * len(arrays)
