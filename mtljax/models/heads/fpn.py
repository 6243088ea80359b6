"""Feature pyramid head."""

from jaxtyping import Array, Float

from mtljax.models.heads.dense import DenseHead
from mtljax.models.layers import resize


class FPNHead(DenseHead):
    """Top-down pyramid over all stages, read at the finest one.

    Each stage is projected to `width` channels. From the coarsest stage on, the sum is resized to
    the next finer stage and added. A 3x3 convolution with normalization and ReLU follows.

    References:
      Lin et al., 2017, arXiv:1612.03144, for the top-down path; Kirillov et al., 2019,
      arXiv:1901.02446, for one dense output from it. The latter merges a convolved copy of every
      level; this head reads the finest level only, which contains all others.
    """

    def decode(self, features: tuple[Array, ...], train: bool) -> Float[Array, "B h w F"]:
        last = len(features) - 1
        x = self.conv(features[-1], train, f"lateral_{last}", size=1)
        for i in reversed(range(last)):
            lateral = self.conv(features[i], train, f"lateral_{i}", size=1)
            x = lateral + resize(x, lateral.shape[1:3], antialias=False)
        return self.conv(x, train, "smooth")
