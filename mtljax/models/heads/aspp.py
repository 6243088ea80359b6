"""Atrous spatial pyramid pooling: DeepLabV3 and V3+."""

import jax.numpy as jnp
from jaxtyping import Array, Float

from mtljax.models.heads.dense import DenseHead
from mtljax.models.layers import resize


class ASPPHead(DenseHead):
    """Parallel dilated convolutions on the last stage, refined with the finest stage.

    A 1x1 convolution, one 3x3 convolution per dilation in `rates` and the global average, each of
    `width` channels, are concatenated and projected to `width` channels. With several stages the
    result is resized to the finest one, concatenated with a projection of it to at most 48
    channels, and passed through two 3x3 convolutions (DeepLabV3+); one stage is only projected
    (DeepLabV3).

    Attributes:
      rates: Dilations, in positions of the last stage. The paper uses (6, 12, 18) for output stride
        16 and twice that for 8, on images of 513 pixels; with a rate above the size of the map
        only the center of the kernel has an effect.

    References:
      Chen et al., 2017, arXiv:1706.05587 (V3); Chen et al., 2018, arXiv:1802.02611 (V3+). One
      variant of the paper's decoder has depthwise separable convolutions; these are plain.
    """

    rates: tuple[int, ...] = (6, 12, 18)

    def decode(self, features: tuple[Array, ...], train: bool) -> Float[Array, "B h w F"]:
        last = features[-1]
        pooled = self.conv(last.mean((1, 2), keepdims=True), train, "pool", size=1)
        branches = [self.conv(last, train, "point", size=1)]
        branches += [self.conv(last, train, f"rate_{rate}", rate=rate) for rate in self.rates]
        branches.append(jnp.broadcast_to(pooled, branches[0].shape))
        x = self.conv(jnp.concatenate(branches, -1), train, "join", size=1)
        if len(features) == 1:
            return x
        fine = features[0]
        narrow = self.conv(fine, train, "fine", size=1, width=min(48, fine.shape[-1]))
        x = jnp.concatenate([resize(x, fine.shape[1:3], antialias=False), narrow], -1)
        x = self.conv(x, train, "refine_0")
        return self.conv(x, train, "refine_1")
