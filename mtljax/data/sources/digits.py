"""scikit-learn's handwritten digits: 1,797 real images of 8x8, embedded in the library."""

import numpy as np

from mtljax.data.base import Arrays, Source


def digits() -> Source:
    """Handwritten digits 0-9, 8x8, grey 0-16: labels `digit` (its class) and `value` (a number).

    20 % are test (360 images), split as tutorials do (`random_state=42`); a tenth of the rest is
    validation.

    References:
      Alpaydin and Kaynak, 1998, UCI ML Repository, doi:10.24432/C50P49
    """
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    images, classes = load_digits(return_X_y=True)
    images = images.reshape(-1, 8, 8, 1).astype(np.float32)
    rest, test = train_test_split(np.arange(len(images)), test_size=0.2, random_state=42)
    train, validation = train_test_split(rest, test_size=0.1, random_state=42)

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
