"""Customized gate control."""

import flax.linen as nn
from jaxtyping import Array

from mtljax.models.fusion.base import Features
from mtljax.models.fusion.experts import Layered


class CGC(Layered):
    """Customized gate control: per task a softmax gate over shared and task-specific experts.

    sum_n g_t(x)_n E_n(x) over the shared experts and those of task t. An expert is a copy of the
    last stage of the trunk, and x is the output of the stage before. Equals `PLE` with one level.
    Shared experts are shared; the experts and the gate of a task are task-specific. The
    representation for `level="features"` is x and the outputs of the shared experts. Gates are sown
    as `intermediates`.

    Attributes:
      shared_experts: Number of experts for all tasks.
      task_experts: Number of additional experts per task.

    References:
      Tang et al., 2020, "Progressive Layered Extraction (PLE): A Novel Multi-Task Learning Model
      for Personalized Recommendations", RecSys
    """

    @nn.compact
    def __call__(self, image: Array, *, train: bool) -> dict[str, Features]:
        return self.extract(image, train, levels=1)
