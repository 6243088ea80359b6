"""EfficientNet-Lite."""

import functools
from collections.abc import Callable

import flax.linen as nn
from jaxtyping import Array

from mtljax.models.layers import DropPath, Norm, NormKind, conv
from mtljax.models.trunks.base import Stages, with_spec

LITE0 = (
    ((1, 3, 1, 1, 16),),
    ((2, 3, 2, 6, 24),),
    ((2, 5, 2, 6, 40),),
    ((3, 3, 2, 6, 80), (3, 5, 1, 6, 112)),
    ((4, 5, 2, 6, 192), (1, 3, 1, 6, 320)),
)
"""Groups of blocks per stage: (blocks, kernel size, stride of the first, expansion, channels)."""


@with_spec
def efficientnet_lite0(
    plan: tuple = LITE0,
    norm: NormKind = "batch",
    drop_path: float = 0.0,
    head_width: int = 1280,
    axis_name: str | None = None,
    momentum: float = 0.99,
) -> Stages:
    """EfficientNet-Lite0: inverted bottlenecks without squeeze-and-excitation, in five stages.

    The published weights expect 8-bit images scaled as (x - 127) / 128: `mean=127, std=128`.
    Padding, normalization (epsilon 1e-3, momentum 0.99) and ReLU6 match the original.

    Args:
      plan: Groups of blocks per stage; see `LITE0`.
      norm: Normalization after each convolution.
      drop_path: Rate of stochastic depth at the last block, linear from 0; 0.2 in the original.
      head_width: Channels of the 1x1 convolution at the end of the last stage.
      axis_name: Axis of `norm="batch"` inside `pmap` or `shard_map`; see `Norm`.
      momentum: Decay of the running statistics of `norm="batch"`.

    Returns:
      Stages: [B, H, W, 3] -> [B, H/2, W/2, 16] -> [B, H/4, W/4, 24] -> [B, H/8, W/8, 40] ->
      [B, H/16, W/16, 112] -> [B, H/32, W/32, head_width].

    References:
      Tan and Le, 2019, arXiv:1905.11946; the Lite variants: Liu, 2020, TensorFlow blog,
      "Higher accuracy on vision models with EfficientNet-Lite"
    """
    counts = [sum(group[0] for group in groups) for groups in plan]
    rates = [drop_path * i / sum(counts) for i in range(sum(counts))]
    return tuple(
        LiteStage(
            stem=32 if i == 0 else None,
            groups=groups,
            head=head_width if i == len(plan) - 1 else None,
            rates=tuple(rates[sum(counts[:i]) : sum(counts[: i + 1])]),
            norm=norm,
            axis_name=axis_name,
            momentum=momentum,
        )
        for i, groups in enumerate(plan)
    )


class LiteStage(nn.Module):
    """Groups of inverted bottlenecks; the first stage has the stem, the last one the head."""

    stem: int | None
    """Channels of the stem; None without one."""
    groups: tuple[tuple[int, int, int, int, int], ...]
    """Groups of blocks: (number, kernel size, stride, expansion, channels)."""
    head: int | None
    """Channels of the head; None without one."""
    rates: tuple[float, ...]
    """Rate of stochastic depth of each block."""
    norm: NormKind
    """Normalization after each convolution."""
    axis_name: str | None
    """Axis of batch normalization; see `Norm`."""
    momentum: float
    """Decay of the running statistics of batch normalization."""

    @nn.compact
    def __call__(self, x: Array, train: bool) -> Array:
        layer = functools.partial(
            ConvNorm, norm=self.norm, axis_name=self.axis_name, momentum=self.momentum
        )
        if self.stem is not None:
            x = nn.relu6(layer(self.stem, 3, stride=2, name="stem")(x, train))
        rates = iter(self.rates)
        for g, (count, size, stride, expansion, width) in enumerate(self.groups):
            for i in range(count):
                x = InvertedBottleneck(
                    width=width,
                    size=size,
                    stride=stride if i == 0 else 1,
                    expansion=expansion,
                    rate=next(rates),
                    layer=layer,
                    name=f"block_{g}_{i}",
                )(x, train)
        if self.head is not None:
            x = nn.relu6(layer(self.head, 1, name="head")(x, train))
        return x


class InvertedBottleneck(nn.Module):
    """1x1 expansion, depthwise convolution, 1x1 projection; residual where shapes agree."""

    width: int
    """Number of output channels."""
    size: int
    """Kernel size of the depthwise convolution."""
    stride: int
    """Stride of the depthwise convolution."""
    expansion: int
    """Factor of the number of channels inside of the block."""
    rate: float
    """Rate of stochastic depth."""
    layer: Callable[..., nn.Module]
    """Function that creates a `ConvNorm`."""

    @nn.compact
    def __call__(self, x: Array, train: bool) -> Array:
        y, wide = x, x.shape[-1] * self.expansion
        if self.expansion > 1:
            y = nn.relu6(self.layer(wide, 1, name="expand")(y, train))
        y = nn.relu6(
            self.layer(wide, self.size, stride=self.stride, groups=wide, name="filter")(y, train)
        )
        y = self.layer(self.width, 1, name="project")(y, train)
        if self.stride > 1 or x.shape != y.shape:
            return y
        return x + DropPath(self.rate)(y, train)


class ConvNorm(nn.Module):
    """Convolution and normalization with the constants of EfficientNet."""

    width: int
    """Number of channels."""
    size: int
    """Kernel size."""
    stride: int = 1
    """Stride of the convolution."""
    groups: int = 1
    """Number of groups of channels that are convolved separately."""
    norm: NormKind = "batch"
    """Kind of normalization."""
    axis_name: str | None = None
    """Axis of batch normalization; see `Norm`."""
    momentum: float = 0.99
    """Decay of the running statistics of batch normalization."""

    @nn.compact
    def __call__(self, x: Array, train: bool) -> Array:
        options = {"feature_group_count": self.groups, "use_bias": self.norm == "none"}
        x = conv(self.width, self.size, strides=self.stride, **options)(x)
        norm = Norm(self.norm, self.axis_name, epsilon=1e-3, momentum=self.momentum)
        return norm(x, train)
