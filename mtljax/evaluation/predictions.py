"""What a trained network says about a split, beside the truth."""

from typing import Any, NamedTuple

import jax
import numpy as np

from mtljax.tasks import Task


class Predictions(NamedTuple):
    """All of a split, on the host."""

    images: np.ndarray
    """[N, H, W, C], in the data's own unit."""
    outputs: dict[str, Any]
    """{task: [N, ...]}, as the network's head gave them."""
    labels: dict[str, Any]
    """{task: [N, ...]}; whatever stands where `present` is False is not looked at."""
    present: dict[str, np.ndarray]
    """{task: bool [N]}."""

    def of(self, task: Task) -> tuple[np.ndarray, Any, Any]:
        """(index [M], outputs [M, ...], labels [M, ...]) of the examples that carry the label."""
        index = np.flatnonzero(self.present[task.name])
        return index, take(self.outputs[task.name], index), take(self.labels[task.name], index)


def take(tree: Any, index: Any) -> Any:
    """Examples `index` of an array, or of each array in a pytree, as NumPy arrays."""
    return jax.tree.map(lambda x: np.asarray(x)[index], tree)
