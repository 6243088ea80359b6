"""Layers that several trunks, fusions and heads use."""

from typing import Any, Literal, get_args

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from mtljax.models import cpu_ops
from mtljax.models.normalization import BatchNorm, GroupNorm

NormKind = Literal["batch", "group", "layer", "none"]
"""Kind of normalization."""
MOMENTUM = 0.9
"""Default decay of the running statistics of batch normalization."""


def he_normal(groups: int = 1) -> nn.initializers.Initializer:
    """Initializer for convolutions before a ReLU, with variance 2 / fan-out.

    Args:
      groups: Number of groups of a grouped convolution; fan-out is that of one group (for a
        depthwise convolution, the size of its kernel).

    References:
      He et al., 2015, arXiv:1502.01852
    """
    return nn.initializers.variance_scaling(2.0 * groups, "fan_out", "normal")


class Norm(nn.Module):
    """Normalization layer, selected by name.

    Attributes:
      kind: `batch` (over the global batch, on all devices), `group` (at most 32 groups of at least
        8 channels), `layer` (over all channels), or `none`.
      axis_name: Axis to average the statistics of `batch` over inside `pmap` or `shard_map`; not
        needed under `jit`, where the batch is global.
      epsilon: Added to the variance; None for Flax's default (1e-5 for `batch`, else 1e-6).
      momentum: Decay of the running statistics of `batch`, in [0, 1); PyTorch counts the other way
        around (0.9 is its 0.1). `make_train_step` warms it up; see `warmed_up_statistics`.
    """

    kind: NormKind
    axis_name: str | None = None
    epsilon: float | None = None
    momentum: float = MOMENTUM

    @nn.compact
    def __call__(self, x: Array, train: bool) -> Array:
        default = 1e-5 if self.kind == "batch" else 1e-6
        epsilon = default if self.epsilon is None else self.epsilon
        if self.kind == "batch":
            if not 0 <= self.momentum < 1:
                raise ValueError(f"momentum must be in [0, 1), not {self.momentum}")
            return BatchNorm(
                not train, momentum=self.momentum, epsilon=epsilon, axis_name=self.axis_name
            )(x)
        if self.kind == "group":
            return GroupNorm(num_groups=group_count(x.shape[-1]), epsilon=epsilon)(x)
        if self.kind == "layer":
            return nn.LayerNorm(epsilon=epsilon)(x)
        if self.kind == "none":
            return x
        raise ValueError(f"norm must be one of {get_args(NormKind)}, not {self.kind!r}")


def group_count(channels: int) -> int:
    """Largest divisor of `channels` that is at most 32 and leaves 8 channels per group."""
    limit = max(1, min(32, channels // 8))
    return max(n for n in range(1, limit + 1) if channels % n == 0)


class DropPath(nn.Module):
    """Stochastic depth: drops a residual branch per example and rescales the remaining ones.

    Attributes:
      rate: Probability that an example loses the branch in training.

    References:
      Huang et al., 2016, arXiv:1603.09382
    """

    rate: float

    @nn.compact
    def __call__(self, x: Float[Array, "B ..."], train: bool) -> Float[Array, "B ..."]:
        over_example = tuple(range(1, x.ndim))
        return nn.Dropout(self.rate, over_example, deterministic=not train)(x)


def conv(features: int, size: int, **options: Any) -> nn.Conv:
    """`nn.Conv` with a square kernel, He initialization and the fast CPU implementations."""
    options.setdefault("kernel_init", he_normal(options.get("feature_group_count", 1)))
    options["conv_general_dilated"] = cpu_ops.conv_general_dilated
    return nn.Conv(features, (size, size), **options)


def patches(features: int, size: int) -> nn.Conv:
    """Convolution named `patches` whose windows of `size` do not overlap."""
    init = nn.initializers.lecun_normal()
    return conv(features, size, strides=size, padding="VALID", kernel_init=init, name="patches")


def dense(features: int, **options: Any) -> nn.Dense:
    """`nn.Dense` that flattens the leading axes, for a faster kernel gradient on CPU."""
    return nn.Dense(features, dot_general=cpu_ops.flat_dot_general, **options)


def global_average_pool(x: Float[Array, "B ..."]) -> Float[Array, "B F"]:
    """Mean over all axes between the first and the last; vectors are returned unchanged."""
    return x if x.ndim == 2 else jnp.mean(x, tuple(range(1, x.ndim - 1)))


def resize(
    x: Float[Array, "B H W C"], size: tuple[int, ...], *, antialias: bool = True
) -> Float[Array, "B h w C"]:
    """Bilinear resizing with half-pixel centers, as two matrix products.

    With `antialias`, pixels of a smaller map are averages over all pixels that they cover.
    """
    if x.shape[1:3] == tuple(size):
        return x
    shape = (x.shape[0], *size, x.shape[-1])
    scale = jnp.asarray([new / old for new, old in zip(size, x.shape[1:3], strict=True)])
    # `jax.image.resize` calls this too, but jax2onnx supports that one for fixed batches only.
    return jax.image.scale_and_translate(
        x, shape, (1, 2), scale, jnp.zeros(2), "linear", antialias=antialias
    )
