"""Batch and group normalization in one multiplication and one addition per element.

The modules have the names, variables and defaults of those of Flax. Moments are sums per channel,
in float32, and the layer is `x * factor + offset` with both per channel; on CPU this takes about
half of the time of subtracting the mean first.
"""

from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


class BatchNorm(nn.BatchNorm):
    """`nn.BatchNorm` over the last axis, without masks; see its attributes."""

    @nn.compact
    def __call__(self, x: Float[Array, "B ... C"]) -> Float[Array, "B ... C"]:  # type: ignore[override]
        channels = x.shape[-1:]
        running_mean = self.variable("batch_stats", "mean", jnp.zeros, channels)
        running_variance = self.variable("batch_stats", "var", jnp.ones, channels)
        if self.use_running_average:
            mean, variance = running_mean.value, running_variance.value
        else:
            moments = _moments(x, range(x.ndim - 1))
            if self.axis_name is not None and not self.is_initializing():
                moments = jax.lax.pmean(moments, self.axis_name)
            mean, variance = moments[0], _variance(*moments)
            if not self.is_initializing():
                for running, batch in ((running_mean, mean), (running_variance, variance)):
                    running.value = self.momentum * running.value + (1 - self.momentum) * batch
        scale = self.param("scale", nn.initializers.ones, channels)
        bias = self.param("bias", nn.initializers.zeros, channels)
        return _apply(x, mean, variance + self.epsilon, scale, bias)


class GroupNorm(nn.Module):
    """`nn.GroupNorm` over contiguous groups of channels.

    Attributes:
      num_groups: A divisor of the number of channels.
      epsilon: Added to the variance.
    """

    num_groups: int
    epsilon: float

    @nn.compact
    def __call__(self, x: Float[Array, "B ... C"]) -> Float[Array, "B ... C"]:
        batch, channels = x.shape[0], x.shape[-1]
        of_channels = _moments(x, range(1, x.ndim - 1))
        of_groups = [
            m.reshape(batch, self.num_groups, -1).mean(-1, keepdims=True) for m in of_channels
        ]
        spread = (1, 1, channels // self.num_groups)
        mean, square = (jnp.tile(m, spread).reshape(batch, channels) for m in of_groups)
        scale = self.param("scale", nn.initializers.ones, (channels,))
        bias = self.param("bias", nn.initializers.zeros, (channels,))
        return _apply(x, mean, _variance(mean, square) + self.epsilon, scale, bias)


def _moments(x: Array, axes: Sequence[int]) -> tuple[Array, Array]:
    """Means of the elements and of their squares, in float32."""
    x = x.astype(jnp.promote_types(x.dtype, jnp.float32))
    return x.mean(axes), (x * x).mean(axes)


def _variance(mean: Array, square: Array) -> Array:
    return jnp.maximum(0.0, square - mean * mean)


def _apply(
    x: Float[Array, "B ... C"],
    mean: Float[Array, "*B C"],
    variance: Float[Array, "*B C"],
    scale: Float[Array, " C"],
    bias: Float[Array, " C"],
) -> Float[Array, "B ... C"]:
    """Returns (x - mean) / sqrt(variance) * scale + bias."""
    factor = jax.lax.rsqrt(variance) * scale
    offset = bias - mean * factor
    if factor.ndim > 1:
        between = (slice(None), *[None] * (x.ndim - 2))
        factor, offset = factor[between], offset[between]
    return (x * factor + offset).astype(jnp.result_type(x, scale, bias))
