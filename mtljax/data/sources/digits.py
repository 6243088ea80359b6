"""Source of scikit-learn's handwritten digits: 1,797 images of 8x8 pixels, part of the library."""

import importlib.util
import math
from pathlib import Path

import numpy as np
from jaxtyping import Int

from mtljax.data.base import Arrays, Source


def digits(per_class: int | None = None, seed: int = 0) -> Source:
    """Handwritten digits 0-9, 8x8, grayscale 0-16: labels `digit` (class) and `value` (number).

    The test split has 20 % of the images (360), as in tutorials (`random_state=42`); the validation
    split has 10 % of the remaining ones.

    Args:
      per_class: Number of training images per class, for few-shot training; all if omitted. Smaller
        sets are subsets of larger ones. Validation and test do not change.
      seed: Seed of that selection.

    References:
      Alpaydin and Kaynak, 1998, UCI ML Repository, doi:10.24432/C50P49
    """
    table = _read_table()
    images, classes = table[:, :-1].reshape(-1, 8, 8, 1).astype(np.float32), table[:, -1]
    remaining, test = _split(np.arange(len(images)), 0.2)
    train, validation = _split(remaining, 0.1)
    if per_class is not None:
        train = train[_balanced_subset(classes[train], per_class, seed)]

    def split(index: np.ndarray) -> Arrays:
        label, is_present = classes[index], np.ones(len(index), bool)
        labels = {"digit": label.astype(np.int32), "value": label.astype(np.float32)}
        return Arrays(images[index], labels, {"digit": is_present, "value": is_present})

    return Source(
        train=split(train),
        validation=split(validation),
        test=split(test),
        mean=float(images[train].mean()),
        std=float(images[train].std()),
        low=0.0,
        high=16.0,
        fixed_splits="" if per_class is None else "per_class limits its training split only",
    )


def _read_table() -> Int[np.ndarray, "n 65"]:
    """Returns pixels and class of each image, as `sklearn.datasets.load_digits` does.

    The import of scikit-learn takes 0.6 s, so its file is read without it where it exists.
    """
    spec = importlib.util.find_spec("sklearn")
    for folder in (spec and spec.submodule_search_locations) or ():
        path = Path(folder) / "datasets" / "data" / "digits.csv.gz"
        if path.exists():
            return np.loadtxt(path, np.int64, delimiter=",")
    from sklearn.datasets import load_digits

    images, classes = load_digits(return_X_y=True)
    return np.column_stack([images, classes]).astype(np.int64)


def _split(
    rows: Int[np.ndarray, " n"], share: float
) -> tuple[Int[np.ndarray, " k"], Int[np.ndarray, " m"]]:
    """Returns the split of scikit-learn's `train_test_split` with `random_state=42`."""
    order = np.random.RandomState(42).permutation(len(rows))
    count = math.ceil(share * len(rows))
    return rows[order[count:]], rows[order[:count]]


def _balanced_subset(
    classes: Int[np.ndarray, " n"], per_class: int, seed: int
) -> Int[np.ndarray, " k"]:
    """Returns the rows of the first `per_class` examples of each class, in a random order."""
    most = int(np.bincount(classes).min())
    if not 1 <= per_class <= most:
        raise ValueError(f"source digits: per_class must be in 1..{most}, not {per_class}")
    if seed < 0:
        raise ValueError(f"source digits: seed must be >= 0, not {seed}")
    order = np.random.default_rng(seed).permutation(len(classes))
    of_class = [order[classes[order] == kind][:per_class] for kind in np.unique(classes)]
    return np.sort(np.concatenate(of_class))
