"""The files of MNIST and its family: Fashion-MNIST, KMNIST, QMNIST, EMNIST."""

import math
from pathlib import Path

import numpy as np

from mtljax.data.base import Arrays, Source
from mtljax.data.sources.arguments import find_folder, read_size
from mtljax.data.sources.arrays import moments
from mtljax.tasks.warps import Pixels, resize_image
from mtljax.utils.bounded_reading import read_bytes

UNSIGNED_BYTES = 8
"""The type code of everything in this family."""


def idx(
    folder: str,
    validation: float = 0.1,
    seed: int = 0,
    size: tuple[int, ...] | None = None,
) -> Source:
    """MNIST, Fashion-MNIST and the like from their IDX files: grey 0-255, labels `label`.

    Train and test are as published; a share of the training images, drawn at random, is validation.

    Args:
      folder: Where `train-images-idx3-ubyte` and the three others are, packed (`.gz`) or not.
      validation: Share of the training images.
      seed: Of the draw.
      size: (height, width) that images are brought to; as they are if left out.

    References:
      LeCun et al., 1998, "Gradient-Based Learning Applied to Document Recognition"; Xiao et al.,
      2017, arXiv:1708.07747, for Fashion-MNIST
    """
    where = find_folder(folder)
    if not 0 < validation < 1:
        raise ValueError(f"source idx: validation must be in (0, 1), not {validation}")
    brought_to = read_size(size, "idx")
    images, labels = _pair(where, "train", brought_to)
    order = np.random.default_rng(seed).permutation(len(images))
    cut = len(images) - max(1, round(validation * len(images)))
    train, held_out = np.sort(order[:cut]), np.sort(order[cut:])
    mean, std = moments(images[train])
    return Source(
        train=_split(images[train], labels[train]),
        validation=_split(images[held_out], labels[held_out]),
        test=_split(*_pair(where, "t10k", brought_to)),
        mean=mean,
        std=std,
        low=0.0,
        high=255.0,
    )


def _split(images: np.ndarray, labels: np.ndarray) -> Arrays:
    return Arrays(images, {"label": labels.astype(np.int32)}, {"label": np.ones(len(labels), bool)})


def _pair(folder: Path, part: str, size: Pixels | None) -> tuple[np.ndarray, np.ndarray]:
    images = read_idx(_find(folder, f"{part}-images-idx3-ubyte"))
    labels = read_idx(_find(folder, f"{part}-labels-idx1-ubyte"))
    if images.ndim != 3 or labels.ndim != 1 or len(images) != len(labels):
        raise ValueError(
            f"{folder}: {part} has images of shape {images.shape} and labels of shape "
            f"{labels.shape}; must be [N, H, W] and [N]"
        )
    images = images[..., None]
    if size is not None:
        images = np.stack([resize_image(one, size) for one in images])
    return images, labels


def _find(folder: Path, name: str) -> Path:
    for path in (folder / name, folder / f"{name}.gz"):
        if path.is_file():
            return path
    raise ValueError(f"{folder} has no file {name} or {name}.gz")


def read_idx(path: Path) -> np.ndarray:
    """An IDX file of bytes: two zeros, a type, the number of axes, their lengths, the data.

    Raises:
      ValueError: It is damaged, or holds something else.
    """
    try:
        data = read_bytes(path)
    except (OSError, ValueError) as error:
        raise ValueError(f"{path} cannot be read: {error}") from None
    if len(data) < 4 or data[:3] != bytes([0, 0, UNSIGNED_BYTES]):
        raise ValueError(f"{path} is no IDX file of bytes: it begins with {data[:4].hex()}")
    start = 4 + 4 * data[3]
    if len(data) < start:
        raise ValueError(f"{path} is damaged: it ends after {len(data)} bytes")
    shape = tuple(int(n) for n in np.frombuffer(data[4:start], ">i4"))
    if len(data) - start != math.prod(shape):
        raise ValueError(
            f"{path} is damaged: {len(data)} bytes do not hold an array of shape {shape}"
        )
    return np.frombuffer(data, np.uint8, offset=start).reshape(shape)
