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
      center: Added to the scaled outputs, so that they are in the unit of the label.
      scale: Factor of the outputs.
      pools: True for global average pooling; False in a subclass that reads positions.
    """

    pools: ClassVar[bool] = True

    outputs: int
    squeeze: bool = False
    center: float = 0.0
    scale: float = 1.0

    @nn.compact
    def __call__(
        self, features: tuple[Array, ...], *, size: tuple[int, int], train: bool
    ) -> Float[Array, "B ..."]:
        del size, train
        x = global_average_pool(features[-1])
        out = self.center + self.scale * nn.Dense(self.outputs)(x)
        return jnp.squeeze(out, -1) if self.squeeze else out
