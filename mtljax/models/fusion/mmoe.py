"""Multi-gate mixture of experts."""

from mtljax.models.fusion.experts import Mixture, SoftmaxGate
from mtljax.models.partition import TASK_PREFIX


class MMoE(Mixture):
    """Multi-gate mixture of experts: sum_n g_t(x)_n E_n(x), with a softmax gate g_t per task.

    The experts E_n are copies of the last `expert_stages` stages of the trunk. The gates read x,
    the features of the shared lower stages averaged over space (or the image, if all stages belong
    to the experts). Experts are shared, gates are task-specific; for the representation see
    `Mixture`. Gates are sown as `intermediates`.

    References:
      Ma et al., 2018, "Modeling Task Relationships in Multi-task Learning with Multi-gate
      Mixture-of-Experts", KDD
    """

    def gate(self, task: str) -> SoftmaxGate:
        return SoftmaxGate(self.experts, parent=self, name=TASK_PREFIX + task)
