"""Base class of fusions with one trunk per task that exchange features after every stage."""

import flax.linen as nn
from jaxtyping import Array

from mtljax.models.fusion.base import Features, Fusion
from mtljax.models.partition import TASK_PREFIX
from mtljax.models.trunks.base import Activations, features_of, with_features


class Exchange(Fusion):
    """One trunk per task; after every stage each task receives a mixture of all tasks' features.

    The units after the last stage are task-specific, since only the head of one task reads each of
    them. All earlier parameters affect every loss. The representation for `level="features"` is the
    output of the last stage of all trunks.
    """

    def unit(self, index: int, name: str) -> nn.Module:
        """Module `(features of all tasks, train) -> features` of the task at `index`."""
        raise NotImplementedError

    @nn.compact
    def __call__(self, image: Array, *, train: bool) -> dict[str, Features]:
        trunks = {task: self.copy_trunk(task) for task in self.tasks}
        outputs: dict[str, Activations] = dict.fromkeys(self.tasks, image)
        levels: list[list[Array]] = []
        for i in range(len(self.trunk)):
            outputs = {t: self.run_stage(trunks[t][i], x, train) for t, x in outputs.items()}
            features = [features_of(x) for x in outputs.values()]
            if i + 1 < len(self.trunk):
                units = [self.unit(t, f"{task}_unit_{i}") for t, task in enumerate(self.tasks)]
                features = [unit(features, train) for unit in units]
                exchanged = map(with_features, outputs.values(), features)
                outputs = dict(zip(self.tasks, exchanged, strict=True))
            levels.append(features)
        *lower, last = self.represent(levels[-self.taps :])
        fused = {}
        for t, task in enumerate(self.tasks):
            mixed = self.unit(t, TASK_PREFIX + task)(last, train)
            fused[task] = (*(level[t] for level in lower), mixed)
        return fused


def initial_weights(index: int, count: int, same: float) -> tuple[float, ...]:
    """Initial weights of task `index`: `same` for itself, 1 - same shared by the other tasks."""
    if count == 1:
        return (1.0,)
    return tuple(same if i == index else (1 - same) / (count - 1) for i in range(count))
