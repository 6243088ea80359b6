"""Residual networks."""

import functools
from collections.abc import Callable
from typing import Any, Literal, get_args

import flax.linen as nn

from mtljax.models.layers import Norm, NormKind, conv, overlapping_max_pool

Stem = Literal["imagenet", "small"]


def resnet(
    depths: tuple[int, ...],
    bottleneck: bool,
    output_stride: int = 32,
    stem: Stem = "imagenet",
    norm: NormKind = "batch",
    width: int = 64,
    axis_name: str | None = None,
) -> tuple[nn.Module, ...]:
    """Residual network in four stages; `resnet18`, `34`, `50`, `101` set the first two arguments.

    The stride of a bottleneck is in its 3x3 convolution, and padding is symmetric, as in the
    weights that are published for PyTorch.

    Args:
      depths: Blocks of each stage.
      bottleneck: Blocks of 1x1, 3x3, 1x1 convolutions with 4 times the width, else two 3x3.
      output_stride: 32, 16 or 8: instead of striding on, the last no, one or two stages dilate.
      stem: `imagenet`: 7x7 convolution and pooling, stride 4 together. `small`, for images of up to
        64 pixels or so: 3x3 convolution, stride 1; every map is then 4 times as high and wide.
      norm: Normalisation after each convolution.
      width: Channels of the first stage; each further one has twice as many.
      axis_name: For `norm="batch"` inside `pmap` or `shard_map`; see `Norm`.

    Returns:
      Stages: [B, H, W, 3] -> [B, H/4, W/4, width] -> [B, H/8, W/8, 2 * width] -> ... ; channels
      are 4 times as many with bottlenecks.

    Raises:
      ValueError: Another output stride or stem.

    References:
      He et al., 2015, arXiv:1512.03385; dilation: Yu et al., 2017, arXiv:1705.09914
    """
    if output_stride not in (32, 16, 8):
        raise ValueError(f"resnet: output_stride must be 32, 16 or 8, not {output_stride}")
    if stem not in get_args(Stem):
        raise ValueError(f"resnet: stem must be one of {', '.join(get_args(Stem))}, not {stem!r}")
    stages, dilation, natural = [], 1, 4
    for i, depth in enumerate(depths):
        before, stride = dilation, 1 if i == 0 else 2
        if stride == 2 and natural == output_stride:
            stride, dilation = 1, dilation * 2
        natural *= stride
        stages.append(
            ResNetStage(
                stem=stem if i == 0 else None,
                depth=depth,
                bottleneck=bottleneck,
                width=width * 2**i,
                stride=stride,
                first_dilation=before,
                dilation=dilation,
                norm=norm,
                axis_name=axis_name,
            )
        )
    return tuple(stages)


resnet18 = functools.partial(resnet, depths=(2, 2, 2, 2), bottleneck=False)
resnet34 = functools.partial(resnet, depths=(3, 4, 6, 3), bottleneck=False)
resnet50 = functools.partial(resnet, depths=(3, 4, 6, 3), bottleneck=True)
resnet101 = functools.partial(resnet, depths=(3, 4, 23, 3), bottleneck=True)


class ResNetStage(nn.Module):
    """The stem, if it is the first stage, and blocks of one width."""

    stem: Stem | None
    depth: int
    bottleneck: bool
    width: int
    stride: int
    first_dilation: int
    dilation: int
    norm: NormKind
    axis_name: str | None

    @nn.compact
    def __call__(self, x, train):
        norm = functools.partial(Norm, self.norm, self.axis_name, momentum=0.9)
        options = {"padding": "SAME", "use_bias": self.norm == "none"}
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
    """x + convolutions(x), the first of them strided, with a projection where shapes differ."""

    width: int
    bottleneck: bool
    stride: int
    dilation: int
    norm: Callable[..., Any]
    use_bias: bool

    @nn.compact
    def __call__(self, x, train):
        spread = {"padding": self.dilation, "kernel_dilation": self.dilation}
        if self.bottleneck:
            plan = [
                (self.width, 1, {}),
                (self.width, 3, {**spread, "strides": self.stride}),
                (4 * self.width, 1, {}),
            ]
        else:
            plan = [
                (self.width, 3, {**spread, "strides": self.stride}),
                (self.width, 3, {"padding": 1}),
            ]
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
