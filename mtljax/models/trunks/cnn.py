"""A plain convolutional network for small images."""

from functools import partial

import flax.linen as nn

from mtljax.models.layers import Norm, NormKind, max_pool
from mtljax.models.small_conv import small_conv


def cnn(
    widths: tuple[int, ...] = (16, 32, 64), blocks: int = 2, norm: NormKind = "group"
) -> tuple[nn.Module, ...]:
    """Plain convolutional network for small images, a stage per resolution.

    Args:
      widths: Channels of each stage; every stage but the first begins by halving height and width.
      blocks: 3x3 convolutions (each with normalisation and ReLU) in a stage.
      norm: Normalisation after each convolution.

    Returns:
      Stages: [B, H, W, C] -> [B, H, W, widths[0]] -> [B, H/2, W/2, widths[1]] -> ...
    """
    return tuple(
        ConvStage(width=w, blocks=blocks, norm=norm, halve=i > 0) for i, w in enumerate(widths)
    )


class ConvStage(nn.Module):
    """2x2 maximum (if `halve`), then `blocks` of 3x3 convolution, normalisation and ReLU."""

    width: int
    blocks: int
    norm: NormKind
    halve: bool

    @nn.compact
    def __call__(self, x, train):
        if self.halve:
            x = max_pool(x)
        for _ in range(self.blocks):
            conv = partial(nn.Conv, use_bias=self.norm == "none", conv_general_dilated=small_conv)
            x = conv(self.width, (3, 3))(x)
            x = nn.relu(Norm(self.norm)(x, train))
        return x
