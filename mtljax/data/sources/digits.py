"""scikit-learn's handwritten digits: 1,797 real images of 8x8, embedded in the library."""

import numpy as np
from jaxtyping import Int

from mtljax.data.base import Arrays, Source


def digits(per_class: int | None = None, seed: int = 0) -> Source:
    """Handwritten digits 0-9, 8x8, grey 0-16: labels `digit` (its class) and `value` (a number).

    20 % are test (360 images), split as tutorials do (`random_state=42`); a tenth of the rest is
    validation.

    Args:
      per_class: How many training images of each class to keep, to learn from few; all if left out.
        Those that a smaller number keeps are among those that a larger one does. Validation and
        test stay as they are.
      seed: Of which are kept.

    References:
      Alpaydin and Kaynak, 1998, UCI ML Repository, doi:10.24432/C50P49
    """
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    images, classes = load_digits(return_X_y=True)
    images = images.reshape(-1, 8, 8, 1).astype(np.float32)
    rest, test = train_test_split(np.arange(len(images)), test_size=0.2, random_state=42)
    train, validation = train_test_split(rest, test_size=0.1, random_state=42)
    if per_class is not None:
        train = train[_few(classes[train], per_class, seed)]

    def split(index: np.ndarray) -> Arrays:
        labels = {
            "digit": classes[index].astype(np.int32),
            "value": classes[index].astype(np.float32),
        }
        present = {name: np.ones(len(index), bool) for name in labels}
        return Arrays(images[index], labels, present)

    return Source(
        train=split(train),
        validation=split(validation),
        test=split(test),
        mean=float(images[train].mean()),
        std=float(images[train].std()),
        low=0.0,
        high=16.0,
    )


def _few(classes: Int[np.ndarray, " n"], per_class: int, seed: int) -> Int[np.ndarray, " k"]:
    """Rows of so many examples of each class, the first of an order that only the seed decides."""
    most = int(np.bincount(classes).min())
    if not 1 <= per_class <= most:
        raise ValueError(f"source digits: per_class must be in 1..{most}, not {per_class}")
    if seed < 0:
        raise ValueError(f"source digits: seed must be >= 0, not {seed}")
    order = np.random.default_rng(seed).permutation(len(classes))
    of_class = [order[classes[order] == kind][:per_class] for kind in np.unique(classes)]
    return np.sort(np.concatenate(of_class))
