"""A task and batches for models that a test writes itself."""

import dataclasses

import jax.numpy as jnp
import numpy as np

from mtljax.tasks import Task


@dataclasses.dataclass(frozen=True, kw_only=True)
class Squared(Task):
    """Squared error of one number."""

    def loss(self, output, label, present):
        square = jnp.where(present, (output - label) ** 2, 0.0)
        return square.sum(), present.sum().astype(jnp.float32)


def squared_batch(size=32, names="ab", seed=0):
    """Images of 8x8x1, and a number of each for every name."""
    image = np.random.default_rng(seed).random((size, 8, 8, 1), np.float32)
    mean = image.mean((1, 2, 3))
    labels = {name: (i + 1) * mean for i, name in enumerate(names)}
    return {"image": image, "labels": labels, "present": {n: np.ones(size, bool) for n in names}}
