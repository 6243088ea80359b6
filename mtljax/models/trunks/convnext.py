"""ConvNeXt."""

import functools
from collections.abc import Callable

import flax.linen as nn
from jaxtyping import Array

from mtljax.models.layers import MOMENTUM, DropPath, Norm, NormKind, conv, patches
from mtljax.models.trunks.base import Stages, drop_path_rates, with_spec


@with_spec
def convnext_t(
    depths: tuple[int, ...] = (3, 3, 9, 3),
    widths: tuple[int, ...] = (96, 192, 384, 768),
    norm: NormKind = "layer",
    drop_path: float = 0.0,
    patch: int = 4,
    axis_name: str | None = None,
    momentum: float = MOMENTUM,
) -> Stages:
    """ConvNeXt-T: convolutional network with the proportions of a transformer, in four stages.

    The last stage ends with the final normalization, per position (original: after pooling).

    Args:
      depths: Blocks of each stage.
      widths: Channels of each stage.
      norm: Normalization; `layer` in the original.
      drop_path: Rate of stochastic depth at the last block, linear from 0; 0.1 in the original.
      patch: Stride of the first convolution; 1 or 2 for small images.
      axis_name: Axis of `norm="batch"` inside `pmap` or `shard_map`; see `Norm`.
      momentum: Decay of the running statistics of `norm="batch"`.

    Returns:
      Stages: [B, H, W, 3] -> [B, H/4, W/4, 96] -> [B, H/8, W/8, 192] -> [B, H/16, W/16, 384] -> ...

    References:
      Liu et al., 2022, arXiv:2201.03545
    """
    rates = drop_path_rates(drop_path, depths)
    return tuple(
        ConvNeXtStage(
            first=i == 0,
            last=i == len(depths) - 1,
            patch=patch if i == 0 else 2,
            width=widths[i],
            rates=rates[i],
            norm=norm,
            axis_name=axis_name,
            momentum=momentum,
        )
        for i in range(len(depths))
    )


class ConvNeXtStage(nn.Module):
    """Non-overlapping convolution that reduces the resolution, then blocks."""

    first: bool
    """True for the first stage, which normalizes after its first convolution, not before it."""
    last: bool
    """True for the last stage, which ends with a normalization."""
    patch: int
    """Kernel size and stride of the first convolution."""
    width: int
    """Number of channels."""
    rates: tuple[float, ...]
    """Rate of stochastic depth of each block."""
    norm: NormKind
    """Kind of normalization."""
    axis_name: str | None
    """Axis of batch normalization; see `Norm`."""
    momentum: float
    """Decay of the running statistics of batch normalization."""

    @nn.compact
    def __call__(self, x: Array, train: bool) -> Array:
        norm = functools.partial(Norm, self.norm, self.axis_name, 1e-6, self.momentum)
        downsample = patches(self.width, self.patch)
        if self.first:
            x = norm(name="patches_norm")(downsample(x), train)
        else:
            x = downsample(norm(name="patches_norm")(x, train))
        for i, rate in enumerate(self.rates):
            x = ConvNeXtBlock(rate, norm, name=f"block_{i}")(x, train)
        return norm(name="norm")(x, train) if self.last else x


class ConvNeXtBlock(nn.Module):
    """x + scale * (7x7 depthwise convolution, normalization, 4x wider, GELU, narrow)."""

    rate: float
    """Rate of stochastic depth."""
    norm: Callable[..., nn.Module]
    """Function that creates a normalization."""

    @nn.compact
    def __call__(self, x: Array, train: bool) -> Array:
        width, init = x.shape[-1], nn.initializers.lecun_normal()
        y = conv(width, 7, feature_group_count=width, kernel_init=init, name="filter")(x)
        y = self.norm(name="norm")(y, train)
        y = nn.gelu(conv(4 * width, 1, kernel_init=init, name="widen")(y), approximate=False)
        y = conv(width, 1, kernel_init=init, name="narrow")(y)
        scale = self.param("scale", nn.initializers.constant(1e-6), (width,))
        return x + DropPath(self.rate)(scale.astype(y.dtype) * y, train)
