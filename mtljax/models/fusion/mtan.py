"""Multi-task attention network."""

import flax.linen as nn
import jax.numpy as jnp

from mtljax.models.fusion.base import Fusion, require_maps
from mtljax.models.layers import Norm, NormKind, conv, resize
from mtljax.models.partition import TASK_PREFIX
from mtljax.models.trunks.base import features_of


class MTAN(Fusion):
    """Multi-task attention network: one trunk, and per task a mask on the output of every stage.

    With p_j the map of stage j, task t keeps a_j = m_j * p_j, where the mask m_j in (0, 1) is
    sigmoid(norm(h(ReLU(norm(g([p_j; f_j(a_{j-1})])))))), g and h 1x1 convolutions of the task and
    f_j a 3x3 convolution that all tasks share, whose result is resized to p_j. (The paper looks at
    a stage twice, in its middle for the mask and at its end for what is masked; a stage is one
    module here, so both are its output.) The trunk and the f_j are shared, the masks are
    task-specific. Since the shared f_j come after task-specific masks, there is no representation
    for `level="features"`. Masks are sown as `intermediates`.

    Attributes:
      norm: Normalisation after each convolution.
      axis_name: For `norm="batch"` inside `pmap` or `shard_map`; see `Norm`.

    References:
      Liu et al., 2018, arXiv:1803.10704
    """

    norm: NormKind = "batch"
    axis_name: str | None = None

    @nn.compact
    def __call__(self, image, *, train):
        shared = [features_of(x) for x in self.run_stages(self.trunk, image, train)]
        require_maps("mtan", shared)
        masks = {
            task: Masks(norm=self.norm, axis_name=self.axis_name, name=TASK_PREFIX + task)
            for task in self.tasks
        }
        bias = self.norm == "none"
        passed, levels = dict.fromkeys(self.tasks), []
        for i, x in enumerate(shared):
            kept = {task: masks[task](i, x, passed[task], train) for task in self.tasks}
            levels.append(kept)
            if i + 1 < len(shared):
                following = shared[i + 1]
                extract = conv(following.shape[-1], 3, use_bias=bias, name=f"pass_{i}")
                norm = Norm(self.norm, self.axis_name, name=f"pass_norm_{i}")
                passed = {
                    task: resize(nn.relu(norm(extract(a), train)), following.shape[1:3])
                    for task, a in kept.items()
                }
        return {task: tuple(kept[task] for kept in levels[-self.taps :]) for task in self.tasks}


class Masks(nn.Module):
    """One task's masks, a pair of 1x1 convolutions per stage."""

    norm: NormKind
    axis_name: str | None

    @nn.compact
    def __call__(self, index, x, passed, train):
        layer = lambda name, y: Norm(self.norm, self.axis_name, name=f"{name}_norm_{index}")(
            conv(x.shape[-1], 1, use_bias=self.norm == "none", name=f"{name}_{index}")(y), train
        )
        seen = x if passed is None else jnp.concatenate([x, passed], -1)
        mask = nn.sigmoid(layer("choose", nn.relu(layer("look", seen))))
        self.sow("intermediates", f"mask_{index}", mask)
        return mask * x
