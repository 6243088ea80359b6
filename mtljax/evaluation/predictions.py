"""Predictions of a trained network for a split, with the labels."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Bool, Int, Num, PyTree

from mtljax.tasks import Task


class Predictions(NamedTuple):
    """Images, outputs and labels of a split, or of a sample of it, on the host."""

    images: Num[np.ndarray, "N H W C"]
    """In the unit of the data."""
    outputs: Mapping[str, PyTree[np.ndarray]]
    """{task: [N, ...]}, outputs of the network's heads."""
    labels: Mapping[str, PyTree[np.ndarray]]
    """{task: [N, ...]}; arbitrary where `present` is False."""
    present: Mapping[str, Bool[np.ndarray, " N"]]
    """{task: [N]}, True for examples with a label."""
    places: Sequence[str] = ()
    """File and row of each example, "" if unknown; empty if all are unknown."""
    split_labels: Mapping[str, int] | None = None
    """Number of labels of each task in the entire split; None: of these examples."""
    split_size: int | None = None
    """Number of examples in the entire split; None: these are all."""

    @property
    def total(self) -> int:
        """Number of examples in the entire split."""
        return len(self.images) if self.split_size is None else self.split_size

    @property
    def labeled(self) -> Mapping[str, int]:
        """Number of labels of each task in the entire split."""
        if self.split_labels is not None:
            return self.split_labels
        return {name: int(present.sum()) for name, present in self.present.items()}

    def of(
        self, task: Task
    ) -> tuple[Int[np.ndarray, " M"], PyTree[np.ndarray], PyTree[np.ndarray]]:
        """Returns (indices, outputs, labels) of the M examples that carry the task's label."""
        index = np.flatnonzero(self.present[task.name])
        return index, take(self.outputs[task.name], index), take(self.labels[task.name], index)


def take(tree: PyTree, index: int | slice | Int[np.ndarray, " M"]) -> PyTree[np.ndarray]:
    """Selects examples from every array of a pytree, as NumPy arrays."""
    return jax.tree.map(lambda x: np.asarray(x)[index], tree)
