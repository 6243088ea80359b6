"""Fitting weights to images of another size, number of channels, or unit."""

import math

import jax.numpy as jnp
import numpy as np

from mtljax.models.layers import resize


def shares(new: int, old: int) -> np.ndarray:
    """[new, old], 1 where a channel of new images stands for one of the old, else 0.

    Fewer channels: each stands for several; a grey one for all. More: they take turns, so that of
    images whose channels are repeated in the same way nothing is lost.
    """
    channel, before = np.ogrid[:new, :old]
    return (before % new == channel % old).astype(float)


def fit_statistics(values: np.ndarray, channels: int) -> np.ndarray:
    """Means or standard deviations [channels], each the mean of those it stands for."""
    values = np.atleast_1d(values).astype(float)
    part = shares(channels, len(values))
    return part @ values / part.sum(1)


def fit_channels(kernel: np.ndarray, std: np.ndarray, channels: int) -> np.ndarray:
    """The first convolution's kernel for images of another number of channels.

    The kernel of a channel that stands for several is their sum, and one that several stand for is
    divided among them, each corrected for the other standard deviation. So a grey image gives what
    it gave when it was repeated in every channel, exactly where all channels had the same mean;
    where they had not (ImageNet's differ by 0.08 of black to white), the image is slightly tinted.

    Args:
      kernel: [kh, kw, old, F].
      std: [old] or one number, that the old images were divided by.
      channels: How many there are now; they are divided by `fit_statistics(std, channels)`.

    Returns:
      [kh, kw, channels, F].
    """
    old = kernel.shape[2]
    before = fit_statistics(std, old)
    part = shares(channels, old)
    part = part / part.sum(0) * fit_statistics(before, channels)[:, None] / before
    return np.einsum("no,hwof->hwnf", part, kernel)


def fit_positions(positions: np.ndarray, count: int) -> np.ndarray:
    """Position embeddings [1, 1 + G * G, D] for another grid: [1, count, D].

    They are interpolated as the trunk itself does for images of another size. Where one of both
    grids is no square, they are given back as they are.
    """
    old, new = math.isqrt(positions.shape[1] - 1), math.isqrt(count - 1)
    if positions.shape[1] != 1 + old**2 or count != 1 + new**2:
        return positions
    grid = resize(jnp.asarray(positions[:, 1:]).reshape(1, old, old, -1), (new, new))
    return np.concatenate([positions[:, :1], np.asarray(grid).reshape(1, new * new, -1)], 1)


def in_unit(
    mean: np.ndarray, std: np.ndarray, old: tuple[float, float], new: tuple[float, float]
) -> tuple[np.ndarray, np.ndarray]:
    """Statistics of images from black to white, `old`, for the same images in another unit."""
    scale = (new[1] - new[0]) / (old[1] - old[0])
    return new[0] + (mean - old[0]) * scale, std * scale
