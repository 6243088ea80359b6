"""What is done to training images in the compiled step: functions of a key and an example."""

import math
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax.scipy.ndimage import map_coordinates
from jaxtyping import Array, Float

Augment = Callable[[jax.Array, Mapping[str, Any]], Mapping[str, Any]]
"""`(keys [B], batch) -> batch`; a key of its own for every example."""


def affine(shift: float = 1.0, rotate: float = 10.0, zoom: float = 0.1) -> Augment:
    """Moves, turns and zooms each image at random; what comes in from outside is its edge.

    Args:
      shift: Farthest move along each axis, in pixels.
      rotate: Largest turn, in degrees.
      zoom: Largest change of size, as a share.

    Raises:
      ValueError: One of them is not a number >= 0.
    """
    for name, value in (("shift", shift), ("rotate", rotate), ("zoom", zoom)):
        if not 0 <= value < math.inf:
            raise ValueError(f"augmentation affine: {name} must be >= 0, not {value}")

    def one(key: jax.Array, image: Float[Array, "H W C"]) -> Float[Array, "H W C"]:
        draw = jax.random.uniform(key, (4,), minval=-1.0, maxval=1.0)
        angle = jnp.deg2rad(rotate) * draw[0]
        scale = jnp.exp(jnp.log1p(zoom) * draw[1])
        height, width, channels = image.shape
        center = jnp.array([height - 1, width - 1]) / 2
        grid = jnp.stack(jnp.mgrid[:height, :width], -1) - center
        turn = jnp.array([[jnp.cos(angle), -jnp.sin(angle)], [jnp.sin(angle), jnp.cos(angle)]])
        at = grid @ turn * scale + center + shift * draw[2:]
        read = lambda plane: map_coordinates(plane, (at[..., 0], at[..., 1]), 1, "nearest")
        moved = jax.vmap(read, -1, -1)(image.astype(jnp.float32))
        return moved.astype(image.dtype).reshape(height, width, channels)

    def augment(keys: jax.Array, batch: Mapping[str, Any]) -> Mapping[str, Any]:
        for name, label in batch["labels"].items():
            if any(jnp.ndim(leaf) > 2 for leaf in jax.tree.leaves(label)):
                raise ValueError(
                    f"augmentation affine moves the image but not the labels of {name!r}, which "
                    "have positions"
                )
        return {**batch, "image": jax.vmap(one)(keys, batch["image"])}

    return augment


def none() -> None:
    """Leaves the images as they are."""


AUGMENTATIONS: dict[str, Callable[..., Augment | None]] = {
    "none": none,
    "affine": affine,
}
"""Name -> function that makes the augmentation, or None."""
