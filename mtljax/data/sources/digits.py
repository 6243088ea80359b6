"""Source of scikit-learn's handwritten digits: 1,797 images of 8x8 pixels, part of the library."""

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
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    images, classes = load_digits(return_X_y=True)
    images = images.reshape(-1, 8, 8, 1).astype(np.float32)
    remaining, test = train_test_split(np.arange(len(images)), test_size=0.2, random_state=42)
    train, validation = train_test_split(remaining, test_size=0.1, random_state=42)
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
