"""Head for tasks with a vector or a scalar per image."""

from typing import ClassVar

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from mtljax.models.layers import global_average_pool


class VectorHead(nn.Module):
    """Global average pooling of the last stage, then one linear layer.

    Attributes:
      outputs: Outputs per image.
      squeeze: Remove the last axis, for one output per image.
      center: Added to the scaled outputs, so that they are in the unit of the label: one number, or
        one per output.
      scale: Factor of the outputs, likewise.
      pools: True for global average pooling; False in a subclass that reads positions.
    """

    pools: ClassVar[bool] = True

    outputs: int
    squeeze: bool = False
    center: float | tuple[float, ...] = 0.0
    scale: float | tuple[float, ...] = 1.0

    @nn.compact
    def __call__(
        self, features: tuple[Array, ...], *, size: tuple[int, int], train: bool
    ) -> Float[Array, "B ..."]:
        del size, train
        x = global_average_pool(features[-1])
        out = nn.Dense(self.outputs)(x)
        out = jnp.asarray(self.center, out.dtype) + jnp.asarray(self.scale, out.dtype) * out
        return jnp.squeeze(out, -1) if self.squeeze else out
