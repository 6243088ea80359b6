"""Base class of heads with an output per pixel, the linear head and the feature pyramid head."""

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from mtljax.models.layers import Norm, NormKind, conv, dense, resize


class DenseHead(nn.Module):
    """`decode`, a linear layer, then bilinear resizing to the size of the image.

    Attributes:
      outputs: Outputs per pixel.
      squeeze: Remove the last axis, for one output per pixel.
      center: Added to the scaled outputs, for all or per output, to give them the label's unit.
      scale: Factor of the outputs.
      stride: Pixels of the image per pixel of the output along each side, rounded up.
      width: Channels of the decoder.
      norm: Normalization in the decoder.
    """

    outputs: int
    squeeze: bool = False
    center: float | tuple[float, ...] = 0.0
    scale: float = 1.0
    stride: int = 1
    width: int = 64
    norm: NormKind = "group"

    def decode(self, features: tuple[Array, ...], train: bool) -> Float[Array, "B h w F"]:
        """Features for the linear layer."""
        raise NotImplementedError

    @nn.compact
    def __call__(
        self, features: tuple[Array, ...], *, size: tuple[int, int], train: bool
    ) -> Float[Array, "B H W ..."]:
        for level in features:
            if level.ndim != 4:
                raise ValueError(
                    f"a head with an output per pixel needs feature maps [B, h, w, F], but this "
                    f"trunk returns features of shape {level.shape}; choose another trunk"
                )
        out = dense(self.outputs, name="output")(self.decode(features, train))
        out = resize(out, tuple(-(-side // self.stride) for side in size), antialias=False)
        out = out * self.scale + jnp.asarray(self.center, out.dtype).reshape(1, 1, 1, -1)
        return jnp.squeeze(out, -1) if self.squeeze else out

    def conv(
        self,
        x: Float[Array, "B h w F"],
        train: bool,
        name: str,
        *,
        size: int = 3,
        rate: int = 1,
        width: int | None = None,
    ) -> Float[Array, "B h w G"]:
        """Convolution to `width` channels (default: of the head), normalization and ReLU."""
        width, bias = width or self.width, self.norm == "none"
        if size == 1:  # equals a 1x1 convolution and is faster on CPU
            x = dense(width, use_bias=bias, name=name)(x)
        else:
            init = nn.initializers.lecun_normal()
            options = {"use_bias": bias, "kernel_dilation": rate, "kernel_init": init}
            x = conv(width, size, name=name, **options)(x)
        return nn.relu(Norm(self.norm, name=f"{name}_norm")(x, train))


class LinearHead(DenseHead):
    """Linear layer on each position of the last stage, resized bilinearly."""

    def decode(self, features: tuple[Array, ...], train: bool) -> Float[Array, "B h w F"]:
        del train
        return features[-1]


class FPNHead(DenseHead):
    """Top-down pyramid over all stages, read at the finest one.

    Each stage is projected to `width` channels. From the coarsest stage on, the sum is resized to
    the next finer stage and added. A 3x3 convolution with normalization and ReLU follows.

    References:
      Lin et al., 2017, arXiv:1612.03144, for the top-down path; Kirillov et al., 2019,
      arXiv:1901.02446, for one dense output from it. The latter merges a convolved copy of every
      level; this head reads the finest level only, which contains all coarser ones.
    """

    def decode(self, features: tuple[Array, ...], train: bool) -> Float[Array, "B h w F"]:
        last = len(features) - 1
        x = self.conv(features[-1], train, f"lateral_{last}", size=1)
        for i in reversed(range(last)):
            lateral = self.conv(features[i], train, f"lateral_{i}", size=1)
            x = lateral + resize(x, lateral.shape[1:3], antialias=False)
        return self.conv(x, train, "smooth")
