"""Residual networks."""

import functools
from collections.abc import Callable
from typing import Any, Literal, get_args

import flax.linen as nn
from jaxtyping import Array

from mtljax.models.cpu_ops import overlapping_max_pool
from mtljax.models.layers import MOMENTUM, Norm, NormKind, conv
from mtljax.models.trunks.base import Stages, preset

Stem = Literal["imagenet", "small"]
"""Kind of stem; see `resnet`."""


def resnet(
    depths: tuple[int, ...] = (2, 2, 2, 2),
    bottleneck: bool = False,
    output_stride: int = 32,
    stem: Stem = "imagenet",
    norm: NormKind = "batch",
    width: int = 64,
    axis_name: str | None = None,
    momentum: float = MOMENTUM,
) -> Stages:
    """Residual network, with one stage per resolution.

    The stride of a bottleneck is in its 3x3 convolution; padding is symmetric, as in PyTorch.

    Args:
      depths: Blocks of each stage.
      bottleneck: True for blocks of 1x1, 3x3 and 1x1 convolutions with 4 times the output width;
        False for blocks of two 3x3 convolutions.
      output_stride: 32, 16 or 8; dilation replaces the stride of the last 0, 1 or 2 stages.
      stem: `imagenet`: 7x7 convolution and max pooling, total stride 4. `small`, for images up to
        about 64 pixels: 3x3 convolution, stride 1; all maps are 4 times as high and wide.
      norm: Normalization after each convolution.
      width: Channels of the first stage; they double at each further stage.
      axis_name: Axis of `norm="batch"` inside `pmap` or `shard_map`; see `Norm`.
      momentum: Decay of the running statistics of `norm="batch"`.

    Returns:
      Stages: [B, H, W, 3] -> [B, H/4, W/4, width] -> [B, H/8, W/8, 2 * width] -> ...; with
      bottlenecks, 4 times as many channels.

    References:
      He et al., 2015, arXiv:1512.03385; dilation: Yu et al., 2017, arXiv:1705.09914
    """
    if output_stride not in (32, 16, 8):
        raise ValueError(f"resnet: output_stride must be 32, 16 or 8, not {output_stride}")
    if stem not in get_args(Stem):
        raise ValueError(f"resnet: stem must be one of {', '.join(get_args(Stem))}, not {stem!r}")
    stages: list[nn.Module] = []
    dilation, total_stride = 1, 4
    for i, depth in enumerate(depths):
        first_dilation, stride = dilation, 1 if i == 0 else 2
        if stride == 2 and total_stride == output_stride:
            stride, dilation = 1, dilation * 2
        total_stride *= stride
        stages.append(
            ResNetStage(
                stem=stem if i == 0 else None,
                depth=depth,
                bottleneck=bottleneck,
                width=width * 2**i,
                stride=stride,
                first_dilation=first_dilation,
                dilation=dilation,
                norm=norm,
                axis_name=axis_name,
                momentum=momentum,
            )
        )
    return tuple(stages)


@preset(resnet, depths=(2, 2, 2, 2), bottleneck=False)
def resnet18() -> None:
    """ResNet-18, with plain blocks (He et al., 2015, arXiv:1512.03385); see `resnet`."""


@preset(resnet, depths=(3, 4, 6, 3), bottleneck=False)
def resnet34() -> None:
    """ResNet-34, with plain blocks (He et al., 2015, arXiv:1512.03385); see `resnet`."""


@preset(resnet, depths=(3, 4, 6, 3), bottleneck=True)
def resnet50() -> None:
    """ResNet-50, with bottlenecks (He et al., 2015, arXiv:1512.03385); see `resnet`."""


@preset(resnet, depths=(3, 4, 23, 3), bottleneck=True)
def resnet101() -> None:
    """ResNet-101, with bottlenecks (He et al., 2015, arXiv:1512.03385); see `resnet`."""


class ResNetStage(nn.Module):
    """Stem, in the first stage, and blocks of one width."""

    stem: Stem | None
    """Kind of stem; None without one."""
    depth: int
    """Number of blocks."""
    bottleneck: bool
    """True for blocks of 1x1, 3x3 and 1x1 convolutions."""
    width: int
    """Channels of the 3x3 convolutions."""
    stride: int
    """Stride of the first block."""
    first_dilation: int
    """Dilation of the first block."""
    dilation: int
    """Dilation of the other blocks."""
    norm: NormKind
    """Normalization after each convolution."""
    axis_name: str | None
    """Axis of batch normalization; see `Norm`."""
    momentum: float
    """Decay of the running statistics of batch normalization."""

    @nn.compact
    def __call__(self, x: Array, train: bool) -> Array:
        norm = functools.partial(Norm, self.norm, self.axis_name, momentum=self.momentum)
        options: dict[str, Any] = {"padding": "SAME", "use_bias": self.norm == "none"}
        if self.stem == "imagenet":
            options["padding"] = 3
            x = conv(self.width, 7, strides=2, name="stem", **options)(x)
            x = overlapping_max_pool(nn.relu(norm(name="stem_norm")(x, train)))
        elif self.stem == "small":
            x = conv(self.width, 3, name="stem", **options)(x)
            x = nn.relu(norm(name="stem_norm")(x, train))
        for i in range(self.depth):
            x = ResNetBlock(
                width=self.width,
                bottleneck=self.bottleneck,
                stride=self.stride if i == 0 else 1,
                dilation=self.first_dilation if i == 0 else self.dilation,
                norm=norm,
                use_bias=self.norm == "none",
                name=f"block_{i}",
            )(x, train)
        return x


class ResNetBlock(nn.Module):
    """x + convolutions(x), with a projection of x where shapes differ."""

    width: int
    """Channels of the 3x3 convolutions."""
    bottleneck: bool
    """True for 1x1, 3x3 and 1x1 convolutions; False for two 3x3 convolutions."""
    stride: int
    """Stride of the first 3x3 convolution."""
    dilation: int
    """Dilation of the first 3x3 convolution."""
    norm: Callable[..., Any]
    """Function that creates a normalization."""
    use_bias: bool
    """True for convolutions with biases."""

    @nn.compact
    def __call__(self, x: Array, train: bool) -> Array:
        dilation = self.dilation
        spatial = {"padding": dilation, "kernel_dilation": dilation, "strides": self.stride}
        if self.bottleneck:
            point: dict[str, int] = {}
            plan = [(self.width, 1, point), (self.width, 3, spatial), (4 * self.width, 1, point)]
        else:
            plan = [(self.width, 3, spatial), (self.width, 3, {"padding": 1})]
        y = x
        for i, (features, size, options) in enumerate(plan):
            y = conv(features, size, use_bias=self.use_bias, name=f"conv_{i}", **options)(y)
            y = self.norm(name=f"norm_{i}")(y, train)
            y = nn.relu(y) if i + 1 < len(plan) else y
        if x.shape != y.shape:
            width = y.shape[-1]
            x = conv(width, 1, strides=self.stride, use_bias=self.use_bias, name="skip")(x)
            x = self.norm(name="skip_norm")(x, train)
        return nn.relu(x + y)
