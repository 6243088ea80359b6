"""Augmentations of the image alone: colours, sharpness, and parts that are covered."""

import jax
import jax.numpy as jnp
import numpy as np

from mtljax.data.augment.base import Augment, of_image, require_strength
from mtljax.tasks.warps import like


def jitter(brightness: float = 0.2, contrast: float = 0.2, saturation: float = 0.2) -> Augment:
    """Changes brightness, contrast and saturation of each image, by factors around 1.

    Args:
      brightness, contrast, saturation: Farthest from 1, in 0..1. Contrast is the distance from the
        image's mean grey, saturation each pixel's distance from its own grey.
    """
    strengths = brightness, contrast, saturation
    require_strength("jitter", 1.0, brightness=brightness, contrast=contrast, saturation=saturation)

    def one(key, image):
        draw = jax.random.uniform(key, (3,), minval=-1.0, maxval=1.0)
        bright, contrasted, saturated = 1 + draw * jnp.asarray(strengths)
        made = image.astype(jnp.float32) * bright
        gray = made.mean(-1, keepdims=True)
        made = gray + (made - gray) * saturated
        mean = gray.mean(keepdims=True)
        return like(mean + (made - mean) * contrasted, image)

    return of_image(one)


def blur(sigma: float = 1.0, share: float = 0.5) -> Augment:
    """Blurs some of the images by a Gaussian.

    Args:
      sigma: Its largest standard deviation, in pixels; drawn from 0 to this.
      share: Of the images.
    """
    require_strength("blur", sigma=sigma)
    require_strength("blur", 1.0, share=share)
    offsets = np.arange(-int(np.ceil(2 * sigma)), int(np.ceil(2 * sigma)) + 1)

    def one(key, image):
        which, how = jax.random.split(key)
        width = sigma * jax.random.uniform(how)
        width = jnp.where(jax.random.bernoulli(which, share), jnp.maximum(width, 1e-3), 1e-3)
        window = jnp.exp(-0.5 * (offsets / width) ** 2)
        window /= window.sum()
        made = image.astype(jnp.float32)
        for axis in (0, 1):
            made = _along(made, window, axis)
        return like(made, image)

    def _along(image, window, axis):
        reach, size = len(offsets) // 2, image.shape[axis]
        around = [(reach, reach) if i == axis else (0, 0) for i in range(3)]
        padded = jnp.pad(image, around, mode="edge")
        parts = [jax.lax.slice_in_dim(padded, i, i + size, axis=axis) for i in range(len(offsets))]
        return sum(weight * part for weight, part in zip(window, parts, strict=True))

    return of_image(one)


def cutout(side: float = 0.3, share: float = 0.5) -> Augment:
    """Covers a rectangle of some of the images with their mean colour; labels stay as they are.

    Args:
      side: Largest height and width, as a share of the image's.
      share: Of the images.

    References:
      DeVries & Taylor, 2017, arXiv:1708.04552; Zhong et al., 2017, arXiv:1708.04896, whose
      rectangles are of varying size
    """
    require_strength("cutout", 1.0, side=side, share=share)

    def one(key, image):
        which, how = jax.random.split(key)
        draw = jax.random.uniform(how, (4,))
        covered = region(image.shape[:2], side * draw[:2], draw[2:])
        covered &= jax.random.bernoulli(which, share)
        mean = image.astype(jnp.float32).mean((0, 1), keepdims=True)
        return jnp.where(covered[..., None], like(mean, image), image)

    return of_image(one)


def region(size: tuple[int, int], extent: jax.Array, place: jax.Array) -> jax.Array:
    """A rectangle [H, W] within an image.

    Args:
      size: Height and width of the image.
      extent: Height and width of the rectangle, as shares of the image's.
      place: Where in the room that is left, from 0 to 1 along each axis.
    """
    inside = []
    for axis in (0, 1):
        long = jnp.round(extent[axis] * size[axis])
        start = jnp.floor(place[axis] * (size[axis] - long + 1))
        at = jnp.arange(size[axis])
        inside.append((at >= start) & (at < start + long))
    return inside[0][:, None] & inside[1][None, :]
