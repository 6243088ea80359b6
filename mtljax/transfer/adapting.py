"""Adaptation of weights to images of another size, number of channels, or unit."""

import math

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from mtljax.models.layers import resize


def channel_map(new: int, old: int) -> Float[np.ndarray, "new old"]:
    """Returns 1 where a channel of new images replaces a channel of old images, else 0.

    With fewer channels, each replaces several; a single one replaces all. With more, they take
    turns, so that images with channels repeated in the same way give the same result.
    """
    channel, before = np.ogrid[:new, :old]
    return (before % new == channel % old).astype(float)


def fit_statistics(values: np.ndarray, channels: int) -> np.ndarray:
    """Returns means or standard deviations [channels], averaged over the replaced channels."""
    values = np.atleast_1d(values).astype(float)
    replaces = channel_map(channels, len(values))
    return replaces @ values / replaces.sum(1)


def fit_channels(kernel: np.ndarray, std: np.ndarray, channels: int) -> np.ndarray:
    """Adapts the kernel of the first convolution to another number of channels.

    The kernel of a channel that replaces several is their sum; that of a channel replaced by
    several is divided among them; both are corrected for the change of the standard deviation. A
    gray image then gives the same result as when it was repeated in every channel. This is exact if
    all channels had the same mean; otherwise (those of ImageNet differ by 0.08 of the range from
    black to white) the image is slightly tinted.

    Args:
      kernel: [kh, kw, old, F], which becomes [kh, kw, channels, F].
      std: Standard deviation of the old images, [old] or one number.
      channels: New number of channels, normalized by `fit_statistics(std, channels)`.
    """
    old = kernel.shape[2]
    before = fit_statistics(std, old)
    replaces = channel_map(channels, old)
    weights = replaces / replaces.sum(0) * fit_statistics(before, channels)[:, None] / before
    return np.einsum("no,hwof->hwnf", weights, kernel)


def fit_positions(positions: np.ndarray, count: int) -> np.ndarray:
    """Interpolates position embeddings [1, 1 + G * G, D] to [1, count, D], as the trunk does.

    Returns them unchanged if one of the grids is not square.
    """
    old, new = math.isqrt(positions.shape[1] - 1), math.isqrt(count - 1)
    if positions.shape[1] != 1 + old**2 or count != 1 + new**2:
        return positions
    grid = resize(jnp.asarray(positions[:, 1:]).reshape(1, old, old, -1), (new, new))
    return np.concatenate([positions[:, :1], np.asarray(grid).reshape(1, new * new, -1)], 1)


def in_unit(
    mean: np.ndarray, std: np.ndarray, old: tuple[float, float], new: tuple[float, float]
) -> tuple[np.ndarray, np.ndarray]:
    """Converts statistics of images from the range `old`, (black, white), to the range `new`."""
    scale = (new[1] - new[0]) / (old[1] - old[0])
    return new[0] + (mean - old[0]) * scale, std * scale
