"""What cross-stitch networks and NDDR-CNN have in common: trunks that exchange after each stage."""

import flax.linen as nn
from jaxtyping import Array

from mtljax.models.fusion.base import Features, Fusion
from mtljax.models.partition import TASK_PREFIX
from mtljax.models.trunks.base import Activations, features_of, with_features


class Exchange(Fusion):
    """A trunk per task; after every stage each task gets a mixture of all tasks' features.

    The units after the last stage are the tasks' own, since only their task's head reads them. All
    that comes before reaches every loss. The representation for `level="features"` is what all
    trunks' last stages give, before those units.
    """

    def unit(self, own: int, name: str) -> nn.Module:
        """The module `(all tasks' features, train) -> features` of the task at index `own`."""
        raise NotImplementedError

    @nn.compact
    def __call__(self, image: Array, *, train: bool) -> dict[str, Features]:
        trunks = {task: self.copy_trunk(task) for task in self.tasks}
        flows: dict[str, Activations] = dict.fromkeys(self.tasks, image)
        levels: list[list[Array]] = []
        for i in range(len(self.trunk)):
            flows = {t: self.run_stage(trunks[t][i], x, train) for t, x in flows.items()}
            features = [features_of(x) for x in flows.values()]
            if i + 1 < len(self.trunk):
                features = [
                    self.unit(own, f"{task}_unit_{i}")(features, train)
                    for own, task in enumerate(self.tasks)
                ]
                flows = {
                    task: with_features(x, new)
                    for (task, x), new in zip(flows.items(), features, strict=True)
                }
            levels.append(features)
        *lower, last = self.represent(levels[-self.taps :])
        return {
            task: (
                *(level[own] for level in lower),
                self.unit(own, TASK_PREFIX + task)(last, train),
            )
            for own, task in enumerate(self.tasks)
        }


def start(own: int, count: int, same: float) -> list[float]:
    """A task's first weights: `same` for its own features, the rest spread over the others."""
    if count == 1:
        return [1.0]
    return [same if i == own else (1 - same) / (count - 1) for i in range(count)]
