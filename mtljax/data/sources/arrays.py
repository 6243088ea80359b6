"""Source of images and labels in memory, or in an `.npz` file."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jaxtyping import Num

from mtljax.data.base import Arrays, Source
from mtljax.utils.bounded_reading import read_npz


def arrays(file: str, validation: float = 0.1, test: float = 0.2, seed: int = 0) -> Source:
    """NumPy arrays in an `.npz` file: `image` [N, H, W, C] and one array per label.

    For the split see `from_arrays`.

    Args:
      file: File written by `np.savez(file, image=..., digit=...)`.
    """
    path = Path(file).expanduser()
    try:
        labels = read_npz(path)
    except FileNotFoundError:
        raise ValueError(f"there is no file {path}") from None
    except (OSError, ValueError) as error:
        raise ValueError(f"{path} is not an .npz file of plain arrays: {error}") from None
    if "image" not in labels:
        raise ValueError(f"{path} has no array 'image'; it has {', '.join(labels) or 'no arrays'}")
    image = labels.pop("image")
    return from_arrays(image, labels, validation=validation, test=test, seed=seed)


def from_arrays(
    image: Num[np.ndarray, "N H W C"],
    labels: Mapping[str, Any],
    present: Mapping[str, np.ndarray] | None = None,
    *,
    validation: float = 0.1,
    test: float = 0.2,
    seed: int = 0,
) -> Source:
    """Returns a source of arrays in memory, split at random.

    Args:
      image: Images, uint8, or floating-point with black 0 and white the largest training value.
      labels: Name -> labels with the examples along the first axis.
      present: Name -> [N] bool, True for examples that carry the label; default: all.
      validation, test: Share of these examples.
      seed: Seed of the split.

    Raises:
      ValueError: The arrays have different lengths, or the shares leave a split empty.

    Example:
      >>> image = np.zeros((10, 4, 4, 1), np.uint8)
      >>> source = from_arrays(image, {"digit": np.arange(10)})
      >>> len(source.train), len(source.validation), len(source.test)
      (7, 1, 2)
    """
    image = np.asarray(image)
    if image.ndim != 4 or image.dtype.kind not in "uif":
        raise ValueError(
            f"images of shape {image.shape} and type {image.dtype}; must be [N, H, W, C] numbers"
        )
    image = image if image.dtype == np.uint8 else image.astype(np.float32)
    labels = jax.tree.map(np.asarray, dict(labels))
    masks = {name: np.ones(len(image), bool) for name in labels}
    masks |= {name: np.asarray(mask, bool) for name, mask in (present or {}).items()}
    leaves = [(name, leaf) for name, label in labels.items() for leaf in jax.tree.leaves(label)]
    for name, leaf in [*leaves, *masks.items()]:
        if len(leaf) != len(image):
            raise ValueError(f"{len(leaf)} labels {name!r} for {len(image)} images")

    order = np.random.default_rng(seed).permutation(len(image))
    splits = [
        Arrays(*jax.tree.map(lambda x, rows=np.sort(rows): x[rows], (image, labels, masks)))
        for rows in split_rows(order, validation, test)
    ]
    high = 255.0 if image.dtype == np.uint8 else float(splits[0].image.max())
    return source_of_arrays(*splits, low=0.0, high=high)


def source_of_arrays(
    train: Arrays, validation: Arrays, test: Arrays, *, low: float, high: float
) -> Source:
    """Returns a source of splits in memory; a constant channel has standard deviation 1."""
    mean, std = (f((0, 1, 2), dtype=np.float64) for f in (train.image.mean, train.image.std))
    std = tuple(float(s) if s > 0 else 1.0 for s in std)
    return Source(
        train=train,
        validation=validation,
        test=test,
        mean=tuple(map(float, mean)),
        std=std,
        low=low,
        high=high,
    )


def split_rows(order: np.ndarray, validation: float, test: float) -> list[np.ndarray]:
    """Cuts rows into training, validation and test."""
    counts = [round(len(order) * share) for share in (validation, test)]
    if not all(c > 0 for c in counts) or sum(counts) >= len(order):
        shares = f"validation={validation}, test={test} and training examples"
        rule = "each split needs at least one"
        raise ValueError(f"{len(order)} examples cannot be split into {shares}: {rule}")
    return np.split(order, [len(order) - sum(counts), len(order) - counts[1]])
