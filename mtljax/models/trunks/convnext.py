"""ConvNeXt."""

import flax.linen as nn

from mtljax.models.layers import DropPath, Norm, NormKind, conv, patches


def convnext_t(
    depths: tuple[int, ...] = (3, 3, 9, 3),
    widths: tuple[int, ...] = (96, 192, 384, 768),
    norm: NormKind = "layer",
    drop_path: float = 0.0,
    patch: int = 4,
    axis_name: str | None = None,
) -> tuple[nn.Module, ...]:
    """ConvNeXt-T: a convolutional network with the proportions of a transformer, in four stages.

    The last stage ends with the final normalisation, of every position; the original averages over
    space before it, which a trunk that gives maps cannot.

    Args:
      depths: Blocks of each stage.
      widths: Channels of each stage.
      norm: Normalisation; `layer` in the original.
      drop_path: Rate of stochastic depth at the last block, growing linearly from 0 at the first;
        0.1 in the original.
      patch: Stride of the first convolution; 1 or 2 for small images.
      axis_name: For `norm="batch"` inside `pmap` or `shard_map`; see `Norm`.

    Returns:
      Stages: [B, H, W, 3] -> [B, H/4, W/4, 96] -> [B, H/8, W/8, 192] -> ... ; each further stage
      halves height and width.

    References:
      Liu et al., 2022, arXiv:2201.03545
    """
    rates = [drop_path * i / max(1, sum(depths) - 1) for i in range(sum(depths))]
    return tuple(
        ConvNeXtStage(
            first=i == 0,
            last=i == len(depths) - 1,
            patch=patch if i == 0 else 2,
            width=widths[i],
            rates=tuple(rates[sum(depths[:i]) : sum(depths[: i + 1])]),
            norm=norm,
            axis_name=axis_name,
        )
        for i in range(len(depths))
    )


class ConvNeXtStage(nn.Module):
    """Patches become positions of a smaller map; then blocks."""

    first: bool
    last: bool
    patch: int
    width: int
    rates: tuple[float, ...]
    norm: NormKind
    axis_name: str | None

    @nn.compact
    def __call__(self, x, train):
        norm = lambda name: Norm(self.norm, self.axis_name, epsilon=1e-6, name=name)
        cut = patches(self.width, self.patch)
        if self.first:
            x = norm("patches_norm")(cut(x), train)
        else:
            x = cut(norm("patches_norm")(x, train))
        for i, rate in enumerate(self.rates):
            x = ConvNeXtBlock(rate, self.norm, self.axis_name, name=f"block_{i}")(x, train)
        return norm("norm")(x, train) if self.last else x


class ConvNeXtBlock(nn.Module):
    """x + scale * (7x7 for each channel, normalise, widen 4 times, GELU, narrow)."""

    rate: float
    norm: NormKind
    axis_name: str | None

    @nn.compact
    def __call__(self, x, train):
        width, init = x.shape[-1], nn.initializers.lecun_normal()
        y = conv(width, 7, feature_group_count=width, kernel_init=init, name="filter")(x)
        y = Norm(self.norm, self.axis_name, epsilon=1e-6, name="norm")(y, train)
        y = nn.gelu(conv(4 * width, 1, kernel_init=init, name="widen")(y), approximate=False)
        y = conv(width, 1, kernel_init=init, name="narrow")(y)
        scale = self.param("scale", nn.initializers.constant(1e-6), (width,))
        return x + DropPath(self.rate)(scale.astype(y.dtype) * y, train)
