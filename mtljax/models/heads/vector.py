"""The head of tasks that have numbers per image."""

from typing import ClassVar

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from mtljax.models.layers import global_average_pool


class VectorHead(nn.Module):
    """Numbers per image: the last stage, averaged over space if it is a map, then one linear layer.

    Attributes:
      outputs: How many numbers.
      squeeze: Drop the last axis, for one number per image.
      center: Added to the result, and
      scale: multiplied with it before, so that outputs are in the label's unit.
      pools: It averages over space at first, so a fusion may have done so. A subclass that looks at
        places sets it to False.
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
        out = self.center + self.scale * nn.Dense(self.outputs)(global_average_pool(features[-1]))
        return jnp.squeeze(out, -1) if self.squeeze else out
