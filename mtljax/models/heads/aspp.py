"""Atrous spatial pyramid pooling: DeepLabV3 and V3+."""

import jax.numpy as jnp

from mtljax.models.heads.dense import DenseHead, resize


class ASPPHead(DenseHead):
    """Parallel dilated convolutions on the last stage, refined with the first one that it gets.

    A 1x1 convolution, 3x3 convolutions at each of `rates` and the average over the whole image, all
    of `width` channels, are joined and brought to `width` channels again. With more than one stage,
    the result is resized to the first of them, joined with 48 channels of it (at most its
    own number), and passed through two 3x3 convolutions (DeepLabV3+); with one stage it is the
    output (DeepLabV3).

    Attributes:
      rates: Dilations, in positions of the last stage. The paper has (6, 12, 18) where the trunk's
        output stride is 16, twice that where it is 8, on images of 513 pixels; a rate beyond the
        size of the map leaves only the middle of the kernel at work.

    References:
      Chen et al., 2017, arXiv:1706.05587 (V3); Chen et al., 2018, arXiv:1802.02611 (V3+). The
      paper's decoder has depthwise separable convolutions in one of its variants; these are plain.
    """

    rates: tuple[int, ...] = (6, 12, 18)

    def decode(self, features, train):
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
        x = jnp.concatenate([resize(x, fine.shape[1:3]), narrow], -1)
        x = self.conv(x, train, "refine_0")
        return self.conv(x, train, "refine_1")
