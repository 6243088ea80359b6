"""A pyramid head: coarse features say what, fine ones say where."""

from mtljax.models.heads.dense import DenseHead, resize


class FPNHead(DenseHead):
    """Top-down pyramid over all stages that it gets, read at the finest one.

    Each stage is brought to `width` channels, and from the coarsest on, the sum so far is resized
    to the next finer stage and added. One 3x3 convolution with normalisation and ReLU follows.

    References:
      Lin et al., 2017, arXiv:1612.03144, for the top-down path; Kirillov et al., 2019,
      arXiv:1901.02446, for one dense output from it. The latter merges a convolved copy of every
      level; here the finest level alone is read, which has received all others.
    """

    def decode(self, features, train):
        last = len(features) - 1
        x = self.conv(features[-1], train, f"lateral_{last}", size=1)
        for i in reversed(range(last)):
            lateral = self.conv(features[i], train, f"lateral_{i}", size=1)
            x = lateral + resize(x, lateral.shape[1:3])
        return self.conv(x, train, "smooth")
