"""Layers that several trunks and fusions share, in the forms that are fast where they run."""

import functools
from typing import Any, Literal, get_args

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from mtljax.models.forms import cpu_forms

NormKind = Literal["batch", "group", "layer", "none"]


def he_normal(groups: int = 1) -> nn.initializers.Initializer:
    """What convolutions before a ReLU start from: variance 2 / fan-out.

    Args:
      groups: Of a grouped convolution, in which an input reaches one group of outputs only, so
        fan-out is that of a group: for a depthwise one, the cells of its kernel.

    References:
      He et al., 2015, arXiv:1502.01852
    """
    return nn.initializers.variance_scaling(2.0 * groups, "fan_out", "normal")


class Norm(nn.Module):
    """Normalisation by name.

    Attributes:
      kind: `batch` (over the whole batch, on all devices), `group` (groups of at least 8 channels,
        at most 32 of them), `layer` (all channels), or `none`.
      axis_name: For `batch` inside `pmap` or `shard_map`: the axis to average statistics over.
        Under `jit` the batch is one, on however many devices, and nothing is needed.
      epsilon: Added to the variance; None for what Flax takes (1e-5 for `batch`, else 1e-6).
      momentum: Of the running statistics of `batch`: the share that is kept.
    """

    kind: NormKind
    axis_name: str | None = None
    epsilon: float | None = None
    momentum: float = 0.99

    @nn.compact
    def __call__(self, x: Array, train: bool) -> Array:
        epsilon = self.epsilon
        if epsilon is None:
            epsilon = 1e-5 if self.kind == "batch" else 1e-6
        if self.kind == "batch":
            return nn.BatchNorm(
                use_running_average=not train,
                axis_name=self.axis_name,
                momentum=self.momentum,
                epsilon=epsilon,
            )(x)
        if self.kind == "group":
            return nn.GroupNorm(num_groups=group_count(x.shape[-1]), epsilon=epsilon)(x)
        if self.kind == "layer":
            return nn.LayerNorm(epsilon=epsilon)(x)
        if self.kind == "none":
            return x
        raise ValueError(f"norm must be one of {get_args(NormKind)}, not {self.kind!r}")


def group_count(channels: int) -> int:
    """The largest divisor of `channels` that is at most 32 and leaves 8 channels per group."""
    limit = max(1, min(32, channels // 8))
    return max(n for n in range(1, limit + 1) if channels % n == 0)


class DropPath(nn.Module):
    """Stochastic depth: drops a residual branch for whole examples, and scales up the others.

    Attributes:
      rate: Share of examples that lose the branch in training.

    References:
      Huang et al., 2016, arXiv:1603.09382
    """

    rate: float

    @nn.compact
    def __call__(self, x: Float[Array, "B ..."], train: bool) -> Float[Array, "B ..."]:
        over_example = tuple(range(1, x.ndim))
        return nn.Dropout(self.rate, over_example, deterministic=not train)(x)


def conv(features: int, size: int, **options: Any) -> nn.Conv:
    """`nn.Conv` with a square kernel, computed by `fast_conv`: the same function and parameters.

    Args:
      features: Output channels.
      size: Height and width of the kernel.
      **options: Any of `nn.Conv`.
    """
    options.setdefault("kernel_init", he_normal(options.get("feature_group_count", 1)))
    return nn.Conv(features, (size, size), conv_general_dilated=fast_conv, **options)


def patches(features: int, size: int) -> nn.Conv:
    """The module `patches`: a convolution whose windows of `size` do not overlap."""
    return conv(
        features,
        size,
        strides=size,
        padding="VALID",
        kernel_init=nn.initializers.lecun_normal(),
        name="patches",
    )


def dense(features: int, **options: Any) -> nn.Dense:
    """`nn.Dense` with its leading axes flattened: the same function and parameters.

    On CPU the kernel's gradient is a matrix product that way: for a map [16, 32, 32, 64] four
    times faster than the contraction over three axes.
    """
    return nn.Dense(features, dot_general=_flat_dot, **options)


def _flat_dot(lhs: Array, rhs: Array, dimensions: Any, **options: Any) -> Array:
    """The last axis of `lhs` with the first of `rhs`, which is all that `nn.Dense` asks for."""
    del dimensions
    flat = jax.lax.dot_general(
        lhs.reshape(-1, lhs.shape[-1]), rhs, (((1,), (0,)), ((), ())), **options
    )
    return flat.reshape(*lhs.shape[:-1], rhs.shape[-1])


def fast_conv(
    x: Float[Array, "B H W C"],
    kernel: Float[Array, "kh kw c F"],
    window_strides: tuple[int, ...],
    padding: Any,
    *,
    lhs_dilation: tuple[int, ...] = (1, 1),
    rhs_dilation: tuple[int, ...] = (1, 1),
    dimension_numbers: Any = None,
    feature_group_count: int = 1,
    precision: Any = None,
) -> Float[Array, "B h w F"]:
    """`jax.lax.conv_general_dilated` for NHWC maps, in the form that is fast on this backend.

    On CPU a 1x1 convolution is a matrix product and a depthwise one is shifted multiply-adds; both
    are many times faster there, forward and backward. Everything else, and every other backend,
    gets XLA's convolution.
    """
    on_cpu = cpu_forms() and tuple(lhs_dilation) == (1, 1)
    size, channels = kernel.shape[:2], x.shape[-1]
    if on_cpu and feature_group_count == channels == kernel.shape[-1] > 1:
        return _depthwise(x, kernel, window_strides, padding, rhs_dilation)
    if on_cpu and size == (1, 1) and feature_group_count == 1 and _adds_nothing(padding):
        x = x[:, :: window_strides[0], :: window_strides[1]]
        return _flat_dot(x, kernel[0, 0], None, precision=precision)
    return jax.lax.conv_general_dilated(
        x,
        kernel,
        window_strides,
        padding,
        lhs_dilation=lhs_dilation,
        rhs_dilation=rhs_dilation,
        dimension_numbers=dimension_numbers,
        feature_group_count=feature_group_count,
        precision=precision,
    )


def _adds_nothing(padding: Any) -> bool:
    """Whether a 1x1 window with this padding reads only the map itself."""
    return isinstance(padding, str) or all(tuple(pair) == (0, 0) for pair in padding)


def _depthwise(x, kernel, strides, padding, dilation):
    """A depthwise convolution as shifted maps times cells of the kernel; by rows to the kernel."""
    if isinstance(padding, str):
        reach = [_reach(kernel, dilation, i) for i in (0, 1)]
        padding = jax.lax.padtype_to_pads(x.shape[1:3], reach, strides, padding)
    settings = {"strides": strides, "dilation": dilation}
    apply = jax.custom_jvp(functools.partial(_shifted_sum, **settings))
    apply.defjvps(
        lambda x_dot, out, x, kernel: _shifted_sum(x_dot, kernel, **settings),
        lambda kernel_dot, out, x, kernel: _shifted_sum_by_rows(x, kernel_dot, **settings),
    )
    return apply(jnp.pad(x, ((0, 0), *padding, (0, 0))), kernel)


def _reach(kernel, dilation, axis):
    """How many cells the kernel spans."""
    return dilation[axis] * (kernel.shape[axis] - 1) + 1


def _shifted_sum(x, kernel, strides, dilation):
    """The sum of shifted maps, each times a cell of the kernel."""
    count = [(x.shape[1 + i] - _reach(kernel, dilation, i)) // strides[i] + 1 for i in (0, 1)]
    part = lambda axis, k: slice(
        k * dilation[axis],
        k * dilation[axis] + (count[axis] - 1) * strides[axis] + 1,
        strides[axis],
    )
    terms = [
        x[:, part(0, i), part(1, j)] * kernel[i, j, 0]
        for i in range(kernel.shape[0])
        for j in range(kernel.shape[1])
    ]
    return functools.reduce(jnp.add, terms)


def _shifted_sum_by_rows(x, kernel, strides, dilation):
    """The same, one row of the result after the other.

    Transposed it is the kernel's gradient: what that sums up, a map for each cell of the kernel,
    then stays in the cache, and the batch may still lie on many devices. The terms of a row are
    made again backwards instead of kept, and summed up in float32.
    """
    reach = _reach(kernel, dilation, 0)
    count = (x.shape[1] - reach) // strides[0] + 1
    wide = kernel.astype(jnp.promote_types(kernel.dtype, jnp.float32))

    def row(start):
        strip = jax.lax.dynamic_slice_in_dim(x, start, reach, 1)
        made = _shifted_sum(strip, wide, strides, dilation)[:, 0]
        return made.astype(jnp.result_type(x, kernel))

    # The loop itself keeps what is computed again apart.
    again = jax.checkpoint(row, prevent_cse=False)
    return jnp.moveaxis(jax.lax.map(again, strides[0] * jnp.arange(count)), 0, 1)


def max_pool(x: Float[Array, "B H W C"], size: int = 2) -> Float[Array, "B h w C"]:
    """Maximum over windows of `size` with stride `size`; an odd edge is padded.

    By reshape and comparison: the same function as `nn.max_pool` there, whose gradient is slow on
    CPUs. Of equal cells the first gets the gradient.
    """
    batch, height, width, channels = x.shape
    pad_height, pad_width = -height % size, -width % size
    if pad_height or pad_width:
        lowest = jnp.finfo(x.dtype).min
        x = jnp.pad(x, ((0, 0), (0, pad_height), (0, pad_width), (0, 0)), constant_values=lowest)
    x = x.reshape(batch, x.shape[1] // size, size, x.shape[2] // size, size, channels)
    x = functools.reduce(_larger, [x[:, :, i] for i in range(size)])
    return functools.reduce(_larger, [x[:, :, :, i] for i in range(size)])


def _larger(a: Array, b: Array) -> Array:
    """The larger of two, NaN if one is; all of the gradient goes to the one that is taken.

    Not `jnp.max` or `jnp.maximum`: their gradients look for the cell that equals the maximum, and
    where XLA computes that cell a second time, rounded differently, they find none: 0 / 0.
    """
    return jnp.where((a >= b) | (a != a), a, b)


def overlapping_max_pool(x: Float[Array, "B H W C"]) -> Float[Array, "B h w C"]:
    """Maximum over 3x3 windows with stride 2, one cell of padding around.

    Columns, then rows, each as the maximum of three slices: `nn.max_pool`'s function, and its
    gradient where no two cells of a window are equal; ten times faster on CPUs with its gradient.
    """
    for axis in (1, 2):
        width = [(0, 0)] * 4
        width[axis] = (1, 1)
        padded = jnp.pad(x, width, constant_values=jnp.finfo(x.dtype).min)
        end = padded.shape[axis] - 2
        slices = [jax.lax.slice_in_dim(padded, i, i + end, 2, axis) for i in range(3)]
        x = functools.reduce(_larger, slices)
    return x


def resize(
    x: Float[Array, "B H W C"], size: tuple[int, ...], *, antialias: bool = True
) -> Float[Array, "B h w C"]:
    """Bilinear to another height and width, pixels as areas; two matrix products.

    Args:
      x: Maps.
      size: Height and width.
      antialias: Average over all pixels where it shrinks.
    """
    if x.shape[1:3] == tuple(size):
        return x
    shape = (x.shape[0], *size, x.shape[-1])
    scale = jnp.asarray([new / old for new, old in zip(size, x.shape[1:3], strict=True)])
    # What `jax.image.resize` itself calls; jax2onnx takes that one for fixed batches only.
    return jax.image.scale_and_translate(
        x, shape, (1, 2), scale, jnp.zeros(2), "linear", antialias=antialias
    )
