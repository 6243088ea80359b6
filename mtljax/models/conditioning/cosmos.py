"""COSMOS: the preference as further channels of the image."""

from typing import ClassVar

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from mtljax.models.conditioning.base import Conditioning
from mtljax.models.fusion.base import Features, Fusion


class Cosmos(Conditioning):
    """COSMOS: the preference is appended to the image as further channels, one per task.

    Train it with balancer `cosmos`, whose penalty pulls the losses towards the direction of the
    preference: with a large penalty, a larger share of a task means a larger loss. With `ew`, it
    means a smaller loss.

    Convention: the default concentration is that of the official code for its image data.

    Attributes:
      code: Learned channels, as in the official code for images: two transposed convolutions with
        ReLU make a map of 10 x 10 from the preference, which is resized to the image. False:
        constant channels, which a trunk with group normalization hardly used on `multi_fashion`.

    References:
      Ruchte and Grabocka, 2021, arXiv:2103.13392
    """

    balancer: ClassVar[str] = "cosmos:penalty=2"

    concentration: float = 1.2
    code: bool = True

    @nn.compact
    def __call__(
        self, fusion: Fusion, image: Array, preference: Float[Array, " T"], *, train: bool
    ) -> dict[str, Features]:
        channels = preference.astype(image.dtype)
        if self.code:
            channels = self.upsample(channels, image.shape[1:3])
        channels = jnp.broadcast_to(channels, (*image.shape[:-1], len(preference)))
        return fusion(jnp.concatenate([image, channels], -1), train=train)

    def upsample(
        self, preference: Float[Array, " T"], size: tuple[int, ...]
    ) -> Float[Array, "H W T"]:
        """Maps of the official code: sizes 1, 4 and 10, then repeated values at `size`."""
        tasks = len(preference)
        x = nn.Dense(4 * 4 * tasks, use_bias=False, name="up_0")(preference)
        x = nn.relu(x).reshape(1, 4, 4, tasks)
        up = nn.ConvTranspose(tasks, (6, 6), (2, 2), padding=(4, 4), use_bias=False, name="up_1")
        x = nn.relu(up(x))[0]
        rows, columns = (np.arange(side) * 10 // side for side in size)
        return x[rows][:, columns]
