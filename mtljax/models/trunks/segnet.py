"""SegNet."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from mtljax.models.layers import Norm, NormKind, conv, max_pool
from mtljax.models.trunks.base import Carry


def segnet(
    widths: tuple[int, ...] = (64, 128, 256, 512, 512),
    depths: tuple[int, ...] = (2, 2, 3, 3, 3),
    norm: NormKind = "batch",
    axis_name: str | None = None,
) -> tuple[nn.Module, ...]:
    """SegNet: VGG-16's convolutions down, their mirror image up to the full resolution again.

    As in the protocol of MTAN and Nash-MTL on NYUv2 and Cityscapes: convolutions have biases and
    batch normalisation, the way up puts values back where each maximum was, and heads read the last
    map, of `widths[0]` channels.

    Args:
      widths: Channels of each stage down.
      depths: 3x3 convolutions of each stage down, and of its mirror image.
      norm: Normalisation after each convolution.
      axis_name: For `norm="batch"` inside `pmap` or `shard_map`; see `Norm`.

    Returns:
      Stages, `len(widths)` down and as many up: [B, H, W, 3] -> [B, H/2, W/2, 64] -> ... ->
      [B, H/32, W/32, 512] -> [B, H/16, W/16, 512] -> ... -> [B, H, W, 64].

    Raises:
      ValueError: Height or width is not a multiple of the stride of the way down.

    References:
      Badrinarayanan et al., 2015, arXiv:1511.00561; Liu et al., 2018, arXiv:1803.10704
    """
    stage = functools.partial(SegNetStage, norm=norm, axis_name=axis_name)
    down = [
        stage(way="down", widths=(width,) * depth)
        for width, depth in zip(widths, depths, strict=True)
    ]
    narrower = (widths[0], *widths[:-1])
    up = [
        stage(way="up", widths=(width,) * depth)
        for width, depth in zip(narrower, depths, strict=True)
    ]
    return (*down, *up[::-1])


class SegNetStage(nn.Module):
    """Convolutions, then 2x2 maximum on the way down; the reverse on the way up.

    What travels beside the features are the marks of the maxima of all resolutions above: maps that
    are 1 where a maximum was.
    """

    way: str
    widths: tuple[int, ...]
    norm: NormKind
    axis_name: str | None

    @nn.compact
    def __call__(self, x, train):
        features, marks = (x.features, x.rest) if isinstance(x, Carry) else (x, ())
        if self.way == "up":
            *marks, last = marks
            features = unpool(features, last)
        for width in self.widths:
            features = conv(width, 3)(features)
            features = nn.relu(Norm(self.norm, self.axis_name, momentum=0.9)(features, train))
        if self.way == "down":
            features, mark = pool(features)
            marks = (*marks, mark)
        return Carry(features, tuple(marks))


def pool(x: Float[Array, "B H W C"]) -> tuple[Float[Array, "B h w C"], Float[Array, "B H W C"]]:
    """2x2 maximum, and a map that is 1 at each window's first maximum, else 0."""
    batch, height, width, channels = x.shape
    if height % 2 or width % 2:
        raise ValueError(
            f"segnet halves height and width at every stage down, and a map of {height} x {width} "
            "cannot be halved; use images whose sides are multiples of 32"
        )
    windows = x.reshape(batch, height // 2, 2, width // 2, 2, channels).swapaxes(2, 3)
    where = windows.reshape(batch, height // 2, width // 2, 4, channels).argmax(3)
    mark = jax.nn.one_hot(where, 4, dtype=x.dtype, axis=3)
    mark = mark.reshape(windows.shape).swapaxes(2, 3).reshape(x.shape)
    return max_pool(x), mark


def unpool(x: Float[Array, "B h w C"], mark: Float[Array, "B H W C"]) -> Float[Array, "B H W C"]:
    """Each value where the maximum was, zeros around it."""
    return jnp.repeat(jnp.repeat(x, 2, 1), 2, 2) * mark
