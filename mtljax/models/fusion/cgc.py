"""Customized gate control."""

import flax.linen as nn

from mtljax.models.fusion.experts import Layered


class CGC(Layered):
    """Customized gate control: per task a softmax gate over shared experts and the task's own.

    sum_n g_t(x)_n E_n(x) over the shared experts and those of task t only; an expert is a copy of
    the trunk's last stage, x what the stage below gives. It is `PLE` with one level. Shared experts
    are shared; a task's experts and its gate are task-specific. The representation for
    `level="features"` is x and what the shared experts make of it. Gates are sown as
    `intermediates`.

    Attributes:
      shared_experts: How many for all tasks.
      task_experts: How many more for each task.

    References:
      Tang et al., 2020, "Progressive Layered Extraction (PLE): A Novel Multi-Task Learning Model
      for Personalized Recommendations", RecSys
    """

    @nn.compact
    def __call__(self, image, *, train):
        return self.extract(image, train, levels=1)
