"""Plain convolutional network for small images."""

import flax.linen as nn
from jaxtyping import Array

from mtljax.models.cpu_ops import conv_general_dilated, max_pool
from mtljax.models.layers import MOMENTUM, Norm, NormKind
from mtljax.models.trunks.base import Stages, with_spec


@with_spec
def cnn(
    widths: tuple[int, ...] = (16, 32, 64),
    blocks: int = 2,
    norm: NormKind = "group",
    stride: int = 1,
    momentum: float = MOMENTUM,
) -> Stages:
    """Plain convolutional network for small images, with one stage per resolution.

    Args:
      widths: Channels of each stage; every stage after the first halves height and width.
      blocks: 3x3 convolutions, each with normalization and ReLU, per stage.
      norm: Normalization after each convolution.
      stride: Stride of the first convolution, at least 1; 2 saves time at half the resolution.
      momentum: Decay of the running statistics of `norm="batch"`.

    Returns:
      Stages: [B, H, W, C] -> [B, H, W, widths[0]] -> [B, H/2, W/2, widths[1]] -> ..., with all
      heights and widths divided by `stride`.
    """
    if stride < 1:
        raise ValueError(f"cnn: stride must be >= 1, not {stride}")
    return tuple(
        ConvStage(
            width=w,
            blocks=blocks,
            norm=norm,
            halve=i > 0,
            stride=1 if i else stride,
            momentum=momentum,
        )
        for i, w in enumerate(widths)
    )


class ConvStage(nn.Module):
    """2x2 max pooling if `halve`, then `blocks` of 3x3 convolution, normalization and ReLU.

    The first convolution has stride `stride`.
    """

    width: int
    """Number of channels."""
    blocks: int
    """Number of convolutions."""
    norm: NormKind
    """Normalization after each convolution."""
    halve: bool
    """True to halve height and width."""
    stride: int
    """Stride of the first convolution."""
    momentum: float
    """Decay of the running statistics of batch normalization."""

    @nn.compact
    def __call__(self, x: Array, train: bool) -> Array:
        if self.halve:
            x = max_pool(x)
        for i in range(self.blocks):
            x = nn.Conv(
                self.width,
                (3, 3),
                strides=self.stride if i == 0 else 1,
                use_bias=self.norm == "none",
                conv_general_dilated=conv_general_dilated,
            )(x)
            x = nn.relu(Norm(self.norm, momentum=self.momentum)(x, train))
        return x
