"""What heads with an output per pixel have in common, and the plainest of them."""

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from mtljax.models import layers
from mtljax.models.layers import Norm, NormKind


class DenseHead(nn.Module):
    """Numbers per pixel: `decode`, then a linear layer, then bilinear resizing to the image's size.

    Attributes:
      outputs: Numbers per pixel.
      squeeze: Drop the last axis, for one number per pixel.
      center: Added to the result, for all or for each of the outputs, and
      scale: multiplied with it before, so that outputs are in the label's unit.
      stride: Pixels of the image per pixel of the output, along each side; a part counts as one.
      width: Channels of the decoder.
      norm: Normalisation in the decoder.
    """

    outputs: int
    squeeze: bool = False
    center: float | tuple[float, ...] = 0.0
    scale: float = 1.0
    stride: int = 1
    width: int = 64
    norm: NormKind = "group"

    def decode(self, features: tuple[Array, ...], train: bool) -> Float[Array, "B h w F"]:
        """The features that the linear layer reads."""
        raise NotImplementedError

    @nn.compact
    def __call__(
        self, features: tuple[Array, ...], *, size: tuple[int, int], train: bool
    ) -> Float[Array, "B H W ..."]:
        for level in features:
            if level.ndim != 4:
                raise ValueError(
                    f"a head with an output per pixel needs feature maps [B, h, w, F], and this "
                    f"trunk gives features of shape {level.shape}; choose another trunk"
                )
        out = nn.Dense(self.outputs, name="output")(self.decode(features, train))
        out = resize(out, tuple(-(-side // self.stride) for side in size))
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
        """Convolution to `width` channels (by default the head's), normalisation, ReLU."""
        width, bias = width or self.width, self.norm == "none"
        if size == 1:  # the same as a 1x1 convolution, and faster on CPUs
            x = nn.Dense(width, use_bias=bias, name=name)(x)
        else:
            kernel, dilation = (size, size), (rate, rate)
            x = nn.Conv(width, kernel, kernel_dilation=dilation, use_bias=bias, name=name)(x)
        return nn.relu(Norm(self.norm, name=f"{name}_norm")(x, train))


class LinearHead(DenseHead):
    """A linear layer on each position of the last stage, resized bilinearly."""

    def decode(self, features, train):
        del train
        return features[-1]


def resize(x: Float[Array, "B h w F"], size: tuple[int, ...]) -> Float[Array, "B H W F"]:
    """Bilinear, with pixels as areas (corners not aligned)."""
    return layers.resize(x, size, antialias=False)
