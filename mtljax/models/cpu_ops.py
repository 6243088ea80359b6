"""CPU implementations of common operations, each equal to the standard one and many times faster.

XLA's CPU backend is slow at convolutions in loops, at depthwise and 1x1 convolutions and at the
gradient of `nn.max_pool`. Layers call these functions instead; on other backends they call XLA's
operations.
"""

import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from mtljax.models.convolution import conv

Padding = str | Sequence[tuple[int, int]]
"""`SAME`, `VALID`, or (before, after) for each axis."""
Pads = tuple[tuple[int, ...], ...]
"""(low, high) for height and width."""
Pair = tuple[int, int]
"""Values for rows and columns."""

standard_ops = jax.make_user_context(False)
"""`with standard_ops(True):` traces each layer as one standard operation (convolution, max pooling)
for exporters. The value is part of the key of `jax.jit`'s trace cache."""


def use_cpu_ops() -> bool:
    """True if the backend is the CPU and `standard_ops` is off."""
    return jax.default_backend() == "cpu" and not standard_ops.value


def conv_general_dilated(
    x: Float[Array, "B H W C"],
    kernel: Float[Array, "kh kw c F"],
    window_strides: Pair,
    padding: Padding,
    *,
    lhs_dilation: Pair = (1, 1),
    rhs_dilation: Pair = (1, 1),
    feature_group_count: int = 1,
    **options: Any,
) -> Float[Array, "B h w F"]:
    """`jax.lax.conv_general_dilated` for NHWC maps.

    On CPU a 1x1 convolution is a matrix product, a depthwise one is shifted multiply-adds, and
    the rest are `mtljax.models.convolution.conv`, one per group.
    """
    is_plain = tuple(lhs_dilation) == (1, 1) and options.get("preferred_element_type") is None
    if not (use_cpu_ops() and is_plain):
        options |= {"lhs_dilation": lhs_dilation, "rhs_dilation": rhs_dilation}
        options |= {"feature_group_count": feature_group_count}
        return jax.lax.conv_general_dilated(x, kernel, window_strides, padding, **options)
    precision = options.get("precision")
    pads = _explicit(padding, x, kernel, window_strides, rhs_dilation)
    if feature_group_count == x.shape[-1] == kernel.shape[-1] > 1:
        return _depthwise(x, kernel, window_strides, pads, rhs_dilation)
    if kernel.shape[:2] == (1, 1) and feature_group_count == 1 and not any(map(any, pads)):
        x = x[:, :: window_strides[0], :: window_strides[1]]
        return flat_dot_general(x, kernel[0, 0], None, precision=precision)
    of_group = functools.partial(
        conv,
        strides=tuple(window_strides),
        padding=pads,
        kernel_dilation=tuple(rhs_dilation),
        precision=precision,
    )
    groups = (jnp.split(a, feature_group_count, -1) for a in (x, kernel))
    return jnp.concatenate(list(map(of_group, *groups)), -1)


def flat_dot_general(
    lhs: Float[Array, "*B K"], rhs: Float[Array, "K F"], dimensions: Any, **options: Any
) -> Float[Array, "*B F"]:
    """`jax.lax.dot_general` for `nn.Dense`: last axis of `lhs` with the first of `rhs`, flattened.

    On CPU the gradient of the kernel is then a matrix product: for a map [16, 32, 32, 64] four
    times faster than the contraction over three axes.
    """
    flat = lhs.reshape(-1, lhs.shape[-1])
    product = jax.lax.dot_general(flat, rhs, (((1,), (0,)), ((), ())), **options)
    return product.reshape(*lhs.shape[:-1], rhs.shape[-1])


def max_pool(x: Float[Array, "B H W C"], size: int = 2) -> Float[Array, "B h w C"]:
    """Maximum over windows of `size` with stride `size`; an odd edge is padded.

    Equals `nn.max_pool`, whose gradient is slow on CPU; the first of equal elements receives it.
    """
    batch, height, width, channels = x.shape
    pad_height, pad_width = -height % size, -width % size
    if pad_height or pad_width:
        lowest = jnp.finfo(x.dtype).min
        x = jnp.pad(x, ((0, 0), (0, pad_height), (0, pad_width), (0, 0)), constant_values=lowest)
    x = x.reshape(batch, x.shape[1] // size, size, x.shape[2] // size, size, channels)
    x = functools.reduce(_maximum, [x[:, :, i] for i in range(size)])
    return functools.reduce(_maximum, [x[:, :, :, i] for i in range(size)])


def overlapping_max_pool(x: Float[Array, "B H W C"]) -> Float[Array, "B h w C"]:
    """Maximum over 3x3 windows with stride 2 and padding 1: columns, then rows.

    Equals `nn.max_pool`, and its gradient without ties in a window, at 1/10 of the time on CPU.
    """
    for axis in (1, 2):
        width = [(0, 0)] * 4
        width[axis] = (1, 1)
        padded = jnp.pad(x, width, constant_values=jnp.finfo(x.dtype).min)
        end = padded.shape[axis] - 2
        slices = [jax.lax.slice_in_dim(padded, i, i + end, 2, axis) for i in range(3)]
        x = functools.reduce(_maximum, slices)
    return x


def _maximum(a: Array, b: Array) -> Array:
    """Elementwise maximum, NaN if either is; only the selected element has a gradient.

    The gradients of `jnp.max` and `jnp.maximum` compare each element with the maximum. If XLA
    recomputes the element with a different rounding, none is equal and the gradient is 0 / 0.
    """
    return jnp.where((a >= b) | (a != a), a, b)


def _explicit(padding: Padding, x: Array, kernel: Array, strides: Pair, dilation: Pair) -> Pads:
    """Returns (low, high) for height and width."""
    if isinstance(padding, str):
        extent = [_extent(kernel, dilation, i) for i in (0, 1)]
        padding = jax.lax.padtype_to_pads(x.shape[1:3], extent, strides, padding)
    return tuple(map(tuple, padding))


def _depthwise(x: Array, kernel: Array, strides: Pair, pads: Pads, dilation: Pair) -> Array:
    """Depthwise convolution as a sum of shifted maps; the derivative by the kernel goes by rows."""
    apply = jax.custom_jvp(functools.partial(_shifted_sum, strides=strides, dilation=dilation))
    apply.defjvps(
        lambda x_dot, out, x, kernel: _shifted_sum(x_dot, kernel, strides, dilation),
        lambda kernel_dot, out, x, kernel: _shifted_sum_by_rows(x, kernel_dot, strides, dilation),
    )
    return apply(jnp.pad(x, ((0, 0), *pads, (0, 0))), kernel)


def _extent(kernel: Array, dilation: Pair, axis: int) -> int:
    """Number of positions that the dilated kernel spans along an axis."""
    return dilation[axis] * (kernel.shape[axis] - 1) + 1


def _shifted_sum(x: Array, kernel: Array, strides: Pair, dilation: Pair) -> Array:
    """Sum of shifted maps, each times one element of the kernel."""
    count = [(x.shape[1 + i] - _extent(kernel, dilation, i)) // strides[i] + 1 for i in (0, 1)]
    last = lambda axis, start: start + (count[axis] - 1) * strides[axis]
    part = lambda i, k: slice(k * dilation[i], last(i, k * dilation[i]) + 1, strides[i])
    terms = [
        x[:, part(0, i), part(1, j)] * kernel[i, j, 0]
        for i in range(kernel.shape[0])
        for j in range(kernel.shape[1])
    ]
    return functools.reduce(jnp.add, terms)


def _shifted_sum_by_rows(x: Array, kernel: Array, strides: Pair, dilation: Pair) -> Array:
    """`_shifted_sum`, one output row after the other.

    Its transpose is the gradient of the kernel. The summands, one map per kernel element, then fit
    into the cache, and the batch can stay sharded over devices. The terms of a row are recomputed
    in the backward pass and summed in float32.
    """
    extent = _extent(kernel, dilation, 0)
    count = (x.shape[1] - extent) // strides[0] + 1
    wide = kernel.astype(jnp.promote_types(kernel.dtype, jnp.float32))

    def row(start: Array) -> Array:
        strip = jax.lax.dynamic_slice_in_dim(x, start, extent, 1)
        out = _shifted_sum(strip, wide, strides, dilation)[:, 0]
        return out.astype(jnp.result_type(x, kernel))

    # The loop already prevents common subexpression elimination.
    recomputed = jax.checkpoint(row, prevent_cse=False)
    return jnp.moveaxis(jax.lax.map(recomputed, strides[0] * jnp.arange(count)), 0, 1)
