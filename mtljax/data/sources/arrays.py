"""Images and labels that are in memory already, as in a notebook."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jaxtyping import Num

from mtljax.data.base import Arrays, Source
from mtljax.utils.bounded_reading import read_npz
from mtljax.utils.tree import flatten


def arrays(file: str, validation: float = 0.1, test: float = 0.2, seed: int = 0) -> Source:
    """NumPy arrays in an `.npz` file: `image` [N, H, W, C], and labels under their own names.

    Args:
      file: The file, as `np.savez(file, image=..., digit=...)` writes it.
      validation, test: Shares of the examples.
      seed: Of the split.
    """
    path = Path(file).expanduser()
    try:
        named = read_npz(path)
    except FileNotFoundError:
        raise ValueError(f"there is no file {path}") from None
    except (OSError, ValueError) as error:
        raise ValueError(f"{path} is no .npz file of plain arrays: {error}") from None
    if "image" not in named:
        raise ValueError(f"{path} has no array 'image'; it has {', '.join(named) or 'nothing'}")
    image = named.pop("image")
    return from_arrays(image, named, validation=validation, test=test, seed=seed)


def from_arrays(
    image: Num[np.ndarray, "N H W C"],
    labels: Mapping[str, Any],
    present: Mapping[str, np.ndarray] | None = None,
    *,
    validation: float = 0.1,
    test: float = 0.2,
    seed: int = 0,
) -> Source:
    """A source of arrays in memory, split at random.

    Args:
      image: uint8, or floating with black 0 and white the largest value there is.
      labels: Name -> labels with the examples along the first axis.
      present: Name -> [N] bool, which examples carry the label; all, where it is left out.
      validation, test: Shares of the examples.
      seed: Of the split.

    Raises:
      ValueError: Arrays of different lengths, or shares that leave a split empty.

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
    everywhere = {name: np.ones(len(image), bool) for name in labels}
    known = {**everywhere, **{n: np.asarray(p, bool) for n, p in (present or {}).items()}}
    for name, leaf in [*flatten(labels).items(), *known.items()]:
        if len(leaf) != len(image):
            raise ValueError(f"{len(leaf)} labels {name!r} for {len(image)} images")

    order = np.random.default_rng(seed).permutation(len(image))
    parts = split_rows(order, validation, test)
    made = [jax.tree.map(lambda x, at=np.sort(at): x[at], (image, labels, known)) for at in parts]
    train = made[0][0]
    mean, std = moments(train)
    return Source(
        **dict(zip(("train", "validation", "test"), [Arrays(*m) for m in made], strict=True)),
        mean=mean,
        std=std,
        low=0.0,
        high=255.0 if image.dtype == np.uint8 else float(train.max()),
    )



def split_rows(order: np.ndarray, validation: float, test: float) -> list[np.ndarray]:
    """Rows cut into training, validation and test.

    Raises:
      ValueError: The shares do not leave at least one row to each.
    """
    counts = [round(len(order) * share) for share in (validation, test)]
    if not all(c > 0 for c in counts) or sum(counts) >= len(order):
        raise ValueError(
            f"{len(order)} examples cannot be split into validation={validation} and test={test} "
            "and something to train on"
        )
    return np.split(order, [len(order) - sum(counts), len(order) - counts[1]])


def moments(image: Num[np.ndarray, "N H W C"]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of each channel; a constant channel has deviation 1."""
    axes = (0, 1, 2)
    mean, std = image.mean(axes, dtype=np.float64), image.std(axes, dtype=np.float64)
    return tuple(map(float, mean)), tuple(float(s) if s > 0 else 1.0 for s in std)
