"""Layers that several trunks share."""

from typing import Literal, get_args

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

NormKind = Literal["batch", "group", "layer", "none"]


class Norm(nn.Module):
    """Normalisation by name.

    Attributes:
      kind: `batch` (over the whole batch, on all devices), `group` (groups of at least 8 channels,
        at most 32 of them), `layer` (all channels), or `none`.
      axis_name: For `batch` inside `pmap` or `shard_map`: the axis to average statistics over.
        Under `jit` the batch is one, on however many devices, and nothing is needed.
    """

    kind: NormKind
    axis_name: str | None = None

    @nn.compact
    def __call__(self, x: Array, train: bool) -> Array:
        if self.kind == "batch":
            return nn.BatchNorm(use_running_average=not train, axis_name=self.axis_name)(x)
        if self.kind == "group":
            return nn.GroupNorm(num_groups=group_count(x.shape[-1]))(x)
        if self.kind == "layer":
            return nn.LayerNorm()(x)
        if self.kind == "none":
            return x
        raise ValueError(f"norm must be one of {get_args(NormKind)}, not {self.kind!r}")


def group_count(channels: int) -> int:
    """The largest divisor of `channels` that is at most 32 and leaves 8 channels per group."""
    limit = max(1, min(32, channels // 8))
    return max(n for n in range(1, limit + 1) if channels % n == 0)


def max_pool(x: Float[Array, "B H W C"], size: int = 2) -> Float[Array, "B h w C"]:
    """Maximum over windows of `size` with stride `size`; an odd edge is padded.

    By reshape: the same function as `nn.max_pool` there, whose gradient is slow on CPUs.
    """
    batch, height, width, channels = x.shape
    pad_height, pad_width = -height % size, -width % size
    if pad_height or pad_width:
        lowest = jnp.finfo(x.dtype).min
        x = jnp.pad(x, ((0, 0), (0, pad_height), (0, pad_width), (0, 0)), constant_values=lowest)
    x = x.reshape(batch, x.shape[1] // size, size, x.shape[2] // size, size, channels)
    return x.max((2, 4))
