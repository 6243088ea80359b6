"""Augmentations of the image only: color, sharpness and occlusion."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from mtljax.data.augment.base import Augment, Image, per_image, require_strength
from mtljax.tasks.warps import like


def jitter(brightness: float = 0.2, contrast: float = 0.2, saturation: float = 0.2) -> Augment:
    """Multiplies brightness, contrast and saturation of each image by random factors around 1.

    Args:
      brightness: Largest difference of the factor from 1, in 0..1.
      contrast: Likewise, for the difference from the image's mean gray.
      saturation: Likewise, for each pixel's difference from its gray.
    """
    strengths = brightness, contrast, saturation
    require_strength("jitter", 1.0, brightness=brightness, contrast=contrast, saturation=saturation)

    def change(key: jax.Array, image: Image) -> Image:
        draw = jax.random.uniform(key, (3,), minval=-1.0, maxval=1.0)
        bright, contrasted, saturated = 1 + draw * jnp.asarray(strengths)
        result = image.astype(jnp.float32) * bright
        gray = result.mean(-1, keepdims=True)
        result = gray + (result - gray) * saturated
        mean = gray.mean(keepdims=True)
        return like(mean + (result - mean) * contrasted, image)

    return per_image(change)


def blur(sigma: float = 1.0, share: float = 0.5) -> Augment:
    """Blurs some of the images with a Gaussian.

    Args:
      sigma: Largest standard deviation in pixels; drawn from 0 to this value.
      share: Share of the images.
    """
    require_strength("blur", sigma=sigma)
    require_strength("blur", 1.0, share=share)
    offsets = np.arange(-int(np.ceil(2 * sigma)), int(np.ceil(2 * sigma)) + 1)

    def change(key: jax.Array, image: Image) -> Image:
        which, how = jax.random.split(key)
        width = sigma * jax.random.uniform(how)
        width = jnp.where(jax.random.bernoulli(which, share), jnp.maximum(width, 1e-3), 1e-3)
        window = jnp.exp(-0.5 * (offsets / width) ** 2)
        window /= window.sum()
        return like(_convolve(_convolve(image.astype(jnp.float32), window, 0), window, 1), image)

    return per_image(change)


def _convolve(image: Image, window: Float[Array, " n"], axis: int) -> Image:
    """Convolves an image along one axis, with its edge values outside."""
    reach, size = len(window) // 2, image.shape[axis]
    padding = [(reach, reach) if i == axis else (0, 0) for i in range(3)]
    padded = jnp.pad(image, padding, mode="edge")
    parts = [jax.lax.slice_in_dim(padded, i, i + size, axis=axis) for i in range(len(window))]
    return sum(weight * part for weight, part in zip(window, parts, strict=True))


def cutout(side: float = 0.3, share: float = 0.5) -> Augment:
    """Covers a rectangle of some of the images with their mean color; labels do not change.

    Args:
      side: Largest height and width of the rectangle, as a share of the image.
      share: Share of the images.

    References:
      DeVries & Taylor, 2017, arXiv:1708.04552; Zhong et al., 2017, arXiv:1708.04896, whose
      rectangles are of varying size
    """
    require_strength("cutout", 1.0, side=side, share=share)

    def change(key: jax.Array, image: Image) -> Image:
        which, how = jax.random.split(key)
        draw = jax.random.uniform(how, (4,))
        covered = region(image.shape[:2], side * draw[:2], draw[2:])
        covered &= jax.random.bernoulli(which, share)
        mean = image.astype(jnp.float32).mean((0, 1), keepdims=True)
        return jnp.where(covered[..., None], like(mean, image), image)

    return per_image(change)


def region(
    size: tuple[int, ...], extent: Float[Array, "2"], position: Float[Array, "2"]
) -> Bool[Array, "H W"]:
    """Returns a mask of a rectangle in an image; `extent` is its size as a share of the image.

    `position` is 0 at the upper or left edge of the image and 1 at the lower or right edge.
    """
    inside = []
    for axis in (0, 1):
        long = jnp.round(extent[axis] * size[axis])
        start = jnp.floor(position[axis] * (size[axis] - long + 1))
        at = jnp.arange(size[axis])
        inside.append((at >= start) & (at < start + long))
    return inside[0][:, None] & inside[1][None, :]
