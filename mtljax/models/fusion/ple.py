"""Progressive layered extraction, and customized gate control, its case of one level."""

import flax.linen as nn
from jaxtyping import Array

from mtljax.models.fusion.base import Features
from mtljax.models.fusion.experts import Layered


class CGC(Layered):
    """Customized gate control: per task a softmax gate over shared and task-specific experts.

    sum_n g_t(x)_n E_n(x) over the shared experts and those of task t. An expert is a copy of the
    last stage of the trunk, and x is the output of the stage before. Equals `PLE` with one level.
    The experts and the gate of a task are task-specific. The representation for `level="features"`
    is x and the outputs of the shared experts. Gates are sown as `intermediates`.

    References:
      Tang et al., 2020, "Progressive Layered Extraction (PLE): A Novel Multi-Task Learning Model
      for Personalized Recommendations", RecSys
    """

    @nn.compact
    def __call__(self, image: Array, *, train: bool) -> dict[str, Features]:
        return self.extract(image, train, levels=1)


class PLE(Layered):
    """Progressive layered extraction: several levels of shared and task-specific experts.

    The last `levels` stages of the trunk are the levels; an expert is a copy of the stage of its
    level. At each level a gate per task mixes the experts of the task and the shared experts, for
    the experts of the task at the next level; a shared gate mixes *all* experts of the level, for
    the shared experts of the next level. A gate reads the spatial mean of its experts' input.

    Through the shared gate, every loss depends on every expert below the last level. Therefore only
    the experts of a task at the last level, its gate at that level and its gate before it are
    task-specific. The representation for `level="features"` is all inputs of these modules.

    Attributes:
      levels: Number of levels, at most the number of stages.

    References:
      Tang et al., 2020, "Progressive Layered Extraction (PLE): A Novel Multi-Task Learning Model
      for Personalized Recommendations", RecSys
    """

    levels: int = 2

    @nn.compact
    def __call__(self, image: Array, *, train: bool) -> dict[str, Features]:
        return self.extract(image, train, self.levels)
