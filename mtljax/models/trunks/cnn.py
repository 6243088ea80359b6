"""A plain convolutional network for small images."""

from functools import partial

import flax.linen as nn

from mtljax.models.layers import Norm, NormKind, max_pool
from mtljax.models.small_conv import small_conv


def cnn(
    widths: tuple[int, ...] = (16, 32, 64),
    blocks: int = 2,
    norm: NormKind = "group",
    stride: int = 1,
) -> tuple[nn.Module, ...]:
    """Plain convolutional network for small images, a stage per resolution.

    Args:
      widths: Channels of each stage; every stage but the first begins by halving height and width.
      blocks: 3x3 convolutions (each with normalisation and ReLU) in a stage.
      norm: Normalisation after each convolution.
      stride: Of the first convolution: 2 where the full resolution costs more than it tells.

    Returns:
      Stages: [B, H, W, C] -> [B, H, W, widths[0]] -> [B, H/2, W/2, widths[1]] -> ..., all heights
      and widths over `stride`.

    Raises:
      ValueError: Stride below 1.
    """
    if stride < 1:
        raise ValueError(f"cnn: stride must be >= 1, not {stride}")
    return tuple(
        ConvStage(width=w, blocks=blocks, norm=norm, halve=i > 0, stride=1 if i else stride)
        for i, w in enumerate(widths)
    )


class ConvStage(nn.Module):
    """2x2 maximum (if `halve`), then `blocks` of 3x3 convolution, normalisation and ReLU.

    The first convolution has the stride.
    """

    width: int
    blocks: int
    norm: NormKind
    halve: bool
    stride: int

    @nn.compact
    def __call__(self, x, train):
        if self.halve:
            x = max_pool(x)
        for i in range(self.blocks):
            conv = partial(nn.Conv, use_bias=self.norm == "none", conv_general_dilated=small_conv)
            x = conv(self.width, (3, 3), strides=self.stride if i == 0 else 1)(x)
            x = nn.relu(Norm(self.norm)(x, train))
        return x
