"""Progressive layered extraction."""

import flax.linen as nn

from mtljax.models.fusion.experts import Layered


class PLE(Layered):
    """Progressive layered extraction: levels of shared and task experts, separated more and more.

    The last `levels` stages of the trunk are the levels; an expert is a copy of the level's stage.
    At each level, a gate per task mixes the task's own and the shared experts, for the task's
    experts of the next level; and the gate of the shared experts mixes *all* experts of the level,
    for the shared experts of the next one. Each gate reads what enters its experts, averaged over
    space.

    Through the shared gate, every loss depends on every expert below the last level. So
    task-specific, in the sense of the balancers, are a task's experts of the last level, its gate
    there and the one just before; all else is shared. The representation for `level="features"` is
    all that enters these. Gates are sown as `intermediates`.

    Attributes:
      shared_experts: How many for all tasks, at each level.
      task_experts: How many more for each task, at each level.
      levels: At most the number of stages.

    References:
      Tang et al., 2020, "Progressive Layered Extraction (PLE): A Novel Multi-Task Learning Model
      for Personalized Recommendations", RecSys
    """

    levels: int = 2

    @nn.compact
    def __call__(self, image, *, train):
        return self.extract(image, train, self.levels)
