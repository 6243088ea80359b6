"""Confusion matrix and class frequencies."""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PyTree

from mtljax.tasks.base import Metrics, Present
from mtljax.tasks.streaming import of_rank


class ConfusionMatrix(Metrics):
    """Counts [C, C] of labels with a class: row the true class, column the predicted one."""

    def __init__(self, num_classes: int, ignore: int = -1):
        self.num_classes, self.ignore = num_classes, ignore

    def empty(self) -> PyTree:
        return {"confusion": np.zeros((self.num_classes, self.num_classes), np.int32)}

    def update(self, state: PyTree, output: Array, label: Array, present: Present) -> PyTree:
        size = self.num_classes
        valid = has_class(label, size, self.ignore) & of_rank(present, label.ndim)
        cell = jnp.where(valid, label, 0).astype(jnp.int32) * size
        cell += output.argmax(-1).astype(jnp.int32)
        counts = jnp.zeros(size**2, jnp.int32).at[cell].add(valid.astype(jnp.int32))
        return {"confusion": state["confusion"] + counts.reshape(size, size)}


def has_class(
    label: Int[Array, "*size"], num_classes: int, ignore: int = -1
) -> Bool[Array, "*size"]:
    """Returns the mask of labels that are a class index and not `ignore`."""
    return (label >= 0) & (label < num_classes) & (label != ignore)


def log_frequencies(labels: Int[np.ndarray, "..."], count: int) -> Float[np.ndarray, " C"]:
    """Returns the logarithms of class frequencies with one added to the count of each class."""
    counts = np.asarray([np.count_nonzero(labels == c) for c in range(count)]) + 1
    return np.log(counts / counts.sum()).astype(np.float32)
