"""SegNet."""

import functools
from typing import Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from mtljax.models.cpu_ops import max_pool
from mtljax.models.layers import MOMENTUM, Norm, NormKind, conv
from mtljax.models.trunks.base import Activations, Carry, Stages, features_of, with_spec


@with_spec
def segnet(
    widths: tuple[int, ...] = (64, 128, 256, 512, 512),
    depths: tuple[int, ...] = (2, 2, 3, 3, 3),
    norm: NormKind = "batch",
    axis_name: str | None = None,
    momentum: float = MOMENTUM,
) -> Stages:
    """SegNet: the convolutions of VGG-16 as encoder, and a mirrored decoder to full resolution.

    Follows the protocol of MTAN and Nash-MTL on NYUv2 and Cityscapes: convolutions have biases and
    batch normalization, the decoder restores values at the positions of the pooled maxima, and
    heads read the last map, of `widths[0]` channels.

    Args:
      widths: Channels of each encoder stage.
      depths: 3x3 convolutions of each encoder stage, and of its decoder stage.
      norm: Normalization after each convolution.
      axis_name: Axis of `norm="batch"` inside `pmap` or `shard_map`; see `Norm`.
      momentum: Decay of the running statistics of `norm="batch"`.

    Returns:
      Stages, `len(widths)` down and as many up: [B, H, W, 3] -> [B, H/2, W/2, 64] -> ... ->
      [B, H/32, W/32, 512] -> [B, H/16, W/16, 512] -> ... -> [B, H, W, 64].

    Raises:
      ValueError: Height or width is not a multiple of the stride of the encoder.

    References:
      Badrinarayanan et al., 2015, arXiv:1511.00561; Liu et al., 2018, arXiv:1803.10704
    """
    stage = functools.partial(SegNetStage, norm=norm, axis_name=axis_name, momentum=momentum)
    outputs = (widths[0], *widths[:-1])
    down = [stage("down", (w,) * n) for w, n in zip(widths, depths, strict=True)]
    up = [stage("up", (w,) * n) for w, n in zip(outputs, depths, strict=True)]
    return (*down, *up[::-1])


class SegNetStage(nn.Module):
    """Convolutions, then 2x2 max pooling (`way="down"`); or unpooling, then convolutions (`"up"`).

    `Carry.rest` holds a mask of the maxima for every higher resolution: 1 at a maximum, else 0.
    """

    way: Literal["down", "up"]
    """Direction of the resolution."""
    widths: tuple[int, ...]
    """Channels of each convolution."""
    norm: NormKind
    """Normalization after each convolution."""
    axis_name: str | None
    """Axis of batch normalization; see `Norm`."""
    momentum: float
    """Decay of the running statistics of batch normalization."""

    @nn.compact
    def __call__(self, x: Activations, train: bool) -> Carry:
        features = features_of(x)
        masks: tuple[Array, ...] = x.rest if isinstance(x, Carry) else ()
        if self.way == "up":
            features, masks = unpool(features, masks[-1]), masks[:-1]
        for width in self.widths:
            features = conv(width, 3)(features)
            norm = Norm(self.norm, self.axis_name, momentum=self.momentum)
            features = nn.relu(norm(features, train))
        if self.way == "down":
            features, mask = pool(features)
            masks = (*masks, mask)
        return Carry(features, masks)


def pool(x: Float[Array, "B H W C"]) -> tuple[Float[Array, "B h w C"], Float[Array, "B H W C"]]:
    """2x2 max pooling, and a mask that is 1 at the first maximum of each window, else 0."""
    batch, height, width, channels = x.shape
    if height % 2 or width % 2:
        raise ValueError(
            f"segnet halves height and width at every stage down, and a map of {height} x {width} "
            "cannot be halved; use images whose sides are multiples of 32"
        )
    windows = x.reshape(batch, height // 2, 2, width // 2, 2, channels).swapaxes(2, 3)
    where = windows.reshape(batch, height // 2, width // 2, 4, channels).argmax(3)
    mask = jax.nn.one_hot(where, 4, dtype=x.dtype, axis=3)
    mask = mask.reshape(windows.shape).swapaxes(2, 3).reshape(x.shape)
    return max_pool(x), mask


def unpool(x: Float[Array, "B h w C"], mask: Float[Array, "B H W C"]) -> Float[Array, "B H W C"]:
    """Puts each value at the position of the maximum, with zeros elsewhere."""
    return jnp.repeat(jnp.repeat(x, 2, 1), 2, 2) * mask
