"""Multi-gate mixture of experts."""

from mtljax.models.fusion.experts import Mixture, SoftmaxGate
from mtljax.models.partition import TASK_PREFIX


class MMoE(Mixture):
    """Multi-gate mixture of experts: sum_n g_t(x)_n E_n(x), a softmax gate g_t per task.

    The experts E_n are copies of the last `expert_stages` stages of the trunk, over shared lower
    stages whose features x the gates read, averaged over space. (With every stage in the experts,
    gates read the image.) Experts are shared, gates task-specific; for the representation see
    `Mixture`. Gates are sown as `intermediates`.

    Attributes:
      experts: How many.
      expert_stages: How many of the trunk's last stages each expert has a copy of.

    References:
      Ma et al., 2018, "Modeling Task Relationships in Multi-task Learning with Multi-gate
      Mixture-of-Experts", KDD
    """

    def gate(self, task):
        return SoftmaxGate(self.experts, parent=self, name=TASK_PREFIX + task)
