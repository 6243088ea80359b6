"""Source of IDX files: MNIST, Fashion-MNIST, KMNIST, QMNIST, EMNIST."""

import math
from pathlib import Path

import numpy as np

from mtljax.data.base import Arrays, Source
from mtljax.data.sources.arguments import find_folder, hold_out, read_size
from mtljax.data.sources.arrays import source_of_arrays
from mtljax.tasks.warps import Pixels, resize_image
from mtljax.utils.bounded_reading import read_bytes
from mtljax.utils.text import first_line

UNSIGNED_BYTES = 8
"""Type code of all files of these data sets."""


def idx(
    folder: str, validation: float = 0.1, seed: int = 0, size: tuple[int, ...] | None = None
) -> Source:
    """MNIST, Fashion-MNIST and similar data sets in IDX files: grayscale 0-255, label `label`.

    Training and test images are as published; validation is drawn from the training images.

    Args:
      folder: Folder with `train-images-idx3-ubyte` and the three other files, or their `.gz`.
      validation: Share of the training images used for validation.
      seed: Seed of that draw.
      size: (height, width) to resize images to; unchanged if omitted.

    References:
      LeCun et al., 1998, "Gradient-Based Learning Applied to Document Recognition"; Xiao et al.,
      2017, arXiv:1708.07747, for Fashion-MNIST
    """
    root = find_folder(folder)
    image_size = read_size(size, "idx")
    images, labels = _read_pair(root, "train", image_size)
    train, held_out = hold_out(len(images), validation, seed, "idx")
    parts = [(images[rows], labels[rows]) for rows in (train, held_out)]
    parts.append(_read_pair(root, "t10k", image_size))
    return source_of_arrays(*(_split(*part) for part in parts), low=0.0, high=255.0)


def _split(images: np.ndarray, labels: np.ndarray) -> Arrays:
    return Arrays(images, {"label": labels.astype(np.int32)}, {"label": np.ones(len(labels), bool)})


def _read_pair(folder: Path, part: str, size: Pixels | None) -> tuple[np.ndarray, np.ndarray]:
    """Reads the images [N, H, W, 1] and labels [N] of "train" or "t10k"."""
    images = read_idx(_find_file(folder, f"{part}-images-idx3-ubyte"))
    labels = read_idx(_find_file(folder, f"{part}-labels-idx1-ubyte"))
    if images.ndim != 3 or labels.ndim != 1 or len(images) != len(labels):
        shapes = f"images of shape {images.shape} and labels of shape {labels.shape}"
        raise ValueError(f"{folder}: {part} has {shapes}; must be [N, H, W] and [N]")
    images = images[..., None]
    if size is not None:
        images = np.stack([resize_image(image, size) for image in images])
    return images, labels


def _find_file(folder: Path, name: str) -> Path:
    for path in (folder / name, folder / f"{name}.gz"):
        if path.is_file():
            return path
    raise ValueError(f"{folder} has no file {name} or {name}.gz")


def read_idx(path: Path) -> np.ndarray:
    """Reads an IDX file of bytes: two zeros, a type, the number of axes, their lengths, data."""
    try:
        data = read_bytes(path)
    except (OSError, ValueError) as error:
        raise ValueError(f"{path} cannot be read: {first_line(error)}") from None
    if len(data) < 4 or data[:3] != bytes([0, 0, UNSIGNED_BYTES]):
        raise ValueError(f"{path} is not an IDX file of bytes: it starts with {data[:4].hex()}")
    start = 4 + 4 * data[3]
    if len(data) < start:
        raise ValueError(f"{path} is damaged: it ends after {len(data)} bytes")
    shape = tuple(int(n) for n in np.frombuffer(data[4:start], ">i4"))
    if len(data) - start != math.prod(shape):
        fault = f"{len(data)} bytes do not hold an array of shape {shape}"
        raise ValueError(f"{path} is damaged: {fault}")
    return np.frombuffer(data, np.uint8, offset=start).reshape(shape)
