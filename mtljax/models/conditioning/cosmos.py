"""COSMOS: the preference as further channels of the image."""

from typing import ClassVar

import jax.numpy as jnp
from jaxtyping import Array, Float

from mtljax.models.conditioning.base import Conditioning
from mtljax.models.fusion.base import Features, Fusion


class Cosmos(Conditioning):
    """COSMOS: the preference is appended to the image as constant channels, one per task.

    Train it with balancer `cosmos`, whose penalty pulls the losses towards the direction of the
    preference: with a large penalty, a larger share of a task means a larger loss. With `ew`, it
    means a smaller loss.

    Convention: the default concentration is that of the official code for its image data. That code
    passes the preference of images through two transposed convolutions first.

    References:
      Ruchte and Grabocka, 2021, arXiv:2103.13392
    """

    balancer: ClassVar[str] = "cosmos:penalty=2.0"

    concentration: float = 1.2

    def __call__(
        self, fusion: Fusion, image: Array, preference: Float[Array, " T"], *, train: bool
    ) -> dict[str, Features]:
        channels = jnp.broadcast_to(preference, (*image.shape[:-1], len(preference)))
        return fusion(jnp.concatenate([image, channels.astype(image.dtype)], -1), train=train)
