"""Convolution whose derivatives of any order are fast on CPU, inside loops too.

XLA's CPU backend has a fast path for convolutions in the dimension order NHWC, HWIO. It brings the
derivatives of `jax.lax.conv_general_dilated` to this order outside loops only; inside `scan`,
`map` and `while_loop` they take up to 100 times as long. The derivatives of this primitive are
convolutions in this order, computed by the primitive itself.
"""

import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir
from jaxtyping import Array, Float

Pair = tuple[int, ...]
"""A value for height and one for width."""
OPTIONS = ("strides", "padding", "input_dilation", "kernel_dilation", "precision")
"""Options of the convolution, which are constants of the compiled program."""


def conv(
    x: Float[Array, "B H W C"],
    kernel: Float[Array, "h w C F"],
    *,
    strides: Pair = (1, 1),
    padding: tuple[Pair, ...] = ((0, 0), (0, 0)),
    input_dilation: Pair = (1, 1),
    kernel_dilation: Pair = (1, 1),
    precision: Any = None,
) -> Float[Array, "B P Q F"]:
    """`jax.lax.conv_general_dilated` of NHWC maps, without groups; options are given per axis."""
    return conv_p.bind(
        x,
        kernel,
        strides=strides,
        padding=padding,
        input_dilation=input_dilation,
        kernel_dilation=kernel_dilation,
        precision=precision,
    )


def _conv(x: Array, kernel: Array, **options: Any) -> Array:
    if _is_swapped(x, kernel, options):
        return _conv_as_product(x, kernel, **options)
    padding = options["padding"]
    if options["input_dilation"] == (1, 1) and min(map(min, padding)) < 0:
        # Negative padding is off the fast path.
        x = _padded(x, [(min(0, low), min(0, high)) for low, high in padding], (1, 1))
        padding = [(max(0, low), max(0, high)) for low, high in padding]
    return jax.lax.conv_general_dilated(
        x,
        kernel,
        options["strides"],
        padding,
        options["input_dilation"],
        options["kernel_dilation"],
        ("NHWC", "HWIO", "NHWC"),
        precision=options["precision"],
    )


def _is_swapped(x: Array, kernel: Array, options: dict[str, Any]) -> bool:
    """True if XLA exchanges map and kernel: the kernel is the larger one.

    Axes along which a convolution is a contraction, or a sum over groups, do not count.
    """
    maps = kernels = 1
    for axis, (low, high) in enumerate(options["padding"]):
        n, k, stride = x.shape[1 + axis], kernel.shape[axis], options["strides"][axis]
        spread = options["input_dilation"][axis]
        is_plain = low == high == 0 and options["kernel_dilation"][axis] == 1
        if is_plain and (stride, spread, k) in ((1, 1, n), (k - 1, k, k)):
            continue
        maps, kernels = maps * n, kernels * k
    return kernels > maps


def _conv_as_product(x: Array, kernel: Array, **options: Any) -> Array:
    """Convolution as one matrix product of the gathered neighborhoods and the kernel.

    For maps smaller than the kernel, where XLA exchanges map and kernel and leaves its fast path.
    """
    x = _padded(x, options["padding"], options["input_dilation"])
    strides, dilation = options["strides"], options["kernel_dilation"]
    rows, columns, channels, features = kernel.shape
    ends = [n - (k - 1) * d for n, k, d in zip(x.shape[1:3], kernel.shape, dilation, strict=False)]
    part = lambda i, k: slice(k * dilation[i], k * dilation[i] + ends[i], strides[i])
    windows = [(part(0, i), part(1, j)) for i in range(rows) for j in range(columns)]
    neighbors = jnp.concatenate([x[:, i, j] for i, j in windows], -1)
    matrix = kernel.reshape(-1, features)
    return jnp.tensordot(neighbors, matrix, axes=1, precision=options["precision"])


def _padded(x: Array, padding: Sequence[Pair], dilation: Pair) -> Array:
    """Spreads the positions of a map and pads it; negative padding cuts it."""
    inside = [(low, high, d - 1) for (low, high), d in zip(padding, dilation, strict=True)]
    return jax.lax.pad(x, jnp.zeros((), x.dtype), [(0, 0, 0), *inside, (0, 0, 0)])


def _input_gradient(out: Array, x: Any, kernel: Array, **options: Any) -> Array:
    """Gradient by `x`: `out`, spread by the strides, convolved with the mirrored kernel."""
    if _is_swapped(x.aval, kernel, options):
        product = functools.partial(_conv_as_product, kernel=kernel, **options)
        return jax.linear_transpose(product, x.aval)(out)[0]
    extents = _extents(out.shape[1:3], x.aval.shape[1:3], kernel.shape[:2], options)
    padding = tuple((k - 1 - low, n + low - o) for o, n, k, low in extents)
    mirrored = jnp.flip(kernel, (0, 1)).swapaxes(2, 3)
    return conv(
        out,
        mirrored,
        strides=options["input_dilation"],
        padding=padding,
        input_dilation=options["strides"],
        kernel_dilation=options["kernel_dilation"],
        precision=options["precision"],
    )


def _kernel_gradient(out: Array, x: Array, kernel: Any, **options: Any) -> Array:
    """Gradient by `kernel`: `x` convolved with `out`, where channels and batch change places."""
    extents = _extents(out.shape[1:3], x.shape[1:3], kernel.aval.shape[:2], options)
    padding = tuple((low, o - n + k - 1 - low) for o, n, k, low in extents)
    gradient = conv(
        channels_first_p.bind(x),
        out.transpose(1, 2, 0, 3),
        strides=options["kernel_dilation"],
        padding=padding,
        input_dilation=options["input_dilation"],
        kernel_dilation=options["strides"],
        precision=options["precision"],
    )
    return gradient.transpose(1, 2, 0, 3)


def _extents(out: Pair, x: Pair, kernel: Pair, options: dict[str, Any]) -> list[tuple[int, ...]]:
    """Returns the dilated sizes of output, input and kernel and the padding before, per axis."""
    dilations = options["strides"], options["input_dilation"], options["kernel_dilation"]
    sizes = [
        [(size - 1) * factor + 1 for size, factor in zip(*pair, strict=True)]
        for pair in zip((out, x, kernel), dilations, strict=True)
    ]
    return list(zip(*sizes, [low for low, _ in options["padding"]], strict=True))


def _batch(arguments: Any, axes: Any, **options: Any) -> tuple[Array, int]:
    """Rule of `jax.vmap`: joins the new axis with the batch or the channels, or loops over it."""
    x, kernel = (
        a if axis is None else jnp.moveaxis(a, axis, 0)
        for a, axis in zip(arguments, axes, strict=True)
    )
    apply = functools.partial(conv_p.bind, **options)
    if axes[1] is None:
        out = apply(x.reshape(-1, *x.shape[2:]), kernel)
        return out.reshape(*x.shape[:2], *out.shape[1:]), 0
    if axes[0] is None:
        count, *_, features = kernel.shape
        joined = jnp.moveaxis(kernel, 0, -2).reshape(*kernel.shape[1:-1], -1)
        out = apply(x, joined)
        return out.reshape(*out.shape[:-1], count, features), 3
    return jax.lax.map(lambda pair: apply(*pair), (x, kernel)), 0


def _shape(x: Any, kernel: Any, **options: Any) -> Any:
    arguments = (jax.ShapeDtypeStruct(a.shape, a.dtype) for a in (x, kernel))
    out = jax.eval_shape(functools.partial(_conv, **options), *arguments)
    return x.update(shape=out.shape, dtype=out.dtype)


def _transpose(x: Float[Array, "B H W C"]) -> Float[Array, "C H W B"]:
    return x.transpose(3, 1, 2, 0)


def _channels_first(x: Float[Array, "B H W C"]) -> Float[Array, "C H W B"]:
    """Exchanges batch and channels.

    XLA fuses a transposition with the elementwise operations before it, and the loop that results
    reads the map from memory once per channel. It does not fuse across the border of a conditional;
    this one has equal branches.
    """
    if jax.device_count() > 1 or x.size == 0:
        return _transpose(x)
    return jax.lax.cond(x[0, 0, 0, 0] > 0, _transpose, _transpose, x)


def _batch_channels_first(arguments: Any, axes: Any) -> tuple[Array, int]:
    """Rule of `jax.vmap`: joins the new axis with the height."""
    x = jnp.moveaxis(arguments[0], axes[0], 1)
    batch, count, height, *rest = x.shape
    out = channels_first_p.bind(x.reshape(batch, count * height, *rest))
    return out.reshape(rest[-1], count, height, *out.shape[2:]), 1


def _channels_first_shape(x: Any) -> Any:
    return x.update(shape=tuple(x.shape[i] for i in (3, 1, 2, 0)))


channels_first_p = Primitive("mtljax_channels_first")
"""Primitive that moves the channels of images to the front."""
channels_first_p.def_impl(_transpose)
channels_first_p.def_abstract_eval(_channels_first_shape)
ad.deflinear2(channels_first_p, lambda out, x: [channels_first_p.bind(out)])
batching.primitive_batchers[channels_first_p] = _batch_channels_first
mlir.register_lowering(channels_first_p, mlir.lower_fun(_channels_first, multiple_results=False))

conv_p = Primitive("mtljax_conv")
"""Primitive of a convolution that is fast on CPU."""
conv_p.def_impl(jax.jit(_conv, static_argnames=OPTIONS))
conv_p.def_abstract_eval(_shape)
ad.defbilinear(conv_p, _input_gradient, _kernel_gradient)
batching.primitive_batchers[conv_p] = _batch
mlir.register_lowering(conv_p, mlir.lower_fun(_conv, multiple_results=False))

SLOW_IN_LOOPS = {jax.lax.conv_general_dilated_p.name}
"""Primitives that are many times slower inside a loop on CPU."""
CONVOLUTIONS = SLOW_IN_LOOPS | {conv_p.name}
"""Names of primitives that are slow on CPU inside of loops."""
