"""Multi-scale task interaction network."""

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array

from mtljax.models.fusion.base import Features, Fusion
from mtljax.models.fusion.pad_net import Distillation, FirstFeatures
from mtljax.models.fusion.pyramid import Gather, last_scales
from mtljax.models.layers import NormKind, conv, dense, global_average_pool, resize
from mtljax.models.partition import TASK_PREFIX


class MTINet(Fusion):
    """MTI-Net: tasks exchange at several scales, and coarse scales tell finer ones what they found.

    From the coarsest scale i to the finest: F_ti = ReLU(norm(conv([trunk_i; up(P_t,i+1)]))), where
    the propagation P_t = F_t + SE_t(joint), joint being a projection of all tasks' features
    weighted by a softmax over tasks. Then, at each scale, messages between tasks as in `PADNet`.
    Finer results are added to coarser ones, downwards, so that whatever stages a head reads tell of
    all scales (the paper joins them upwards, which is a matter for the head here). A fusion knows
    no labels: features are distilled, not intermediate predictions, and supervised by the final
    losses only.

    Trunk, F_ti and propagation are shared; distillation and what follows are task-specific. The
    representation for `level="features"` is all F_ti. Gates are sown as `intermediates`.

    Attributes:
      scales: How many of the trunk's last stages.
      width: Channels of F_ti.
      norm: Normalisation in the makers of F_ti.
      axis_name: For `norm="batch"` inside `pmap` or `shard_map`; see `Norm`.

    References:
      Vandenhende et al., 2020, arXiv:2001.06902
    """

    scales: int = 3
    width: int = 64
    norm: NormKind = "batch"
    axis_name: str | None = None

    @nn.compact
    def __call__(self, image: Array, *, train: bool) -> dict[str, Features]:
        lower, maps = last_scales(self, "mti_net", image, train)
        levels: list[dict[str, Array]] = []
        for i, x in reversed(list(enumerate(maps))):
            if levels:
                passed = Propagation(self.tasks, name=f"propagation_{i}")(levels[0])
                seen = {
                    t: jnp.concatenate([x, resize(p, x.shape[1:3])], -1) for t, p in passed.items()
                }
            else:
                seen = dict.fromkeys(self.tasks, x)
            make = lambda task, i=i: FirstFeatures(
                self.width, self.norm, self.axis_name, name=f"{task}_features_{i}"
            )
            levels.insert(0, {task: make(task)(seen[task], train) for task in self.tasks})
        lower, levels = self.represent((lower, levels))
        fused = {}
        for task in self.tasks:
            own = [level[task] for level in levels]
            others = [[level[other] for other in self.tasks if other != task] for level in levels]
            fused[task] = (*lower, *Branch(name=TASK_PREFIX + task)(own, others))[-self.taps :]
        return fused


class Propagation(nn.Module):
    """What a coarser scale passes on to a finer one: each task's features and what all agree on."""

    tasks: tuple[str, ...]

    @nn.compact
    def __call__(self, features):
        stacked = jnp.stack([features[task] for task in self.tasks], -2)
        joined = stacked.reshape(*stacked.shape[:-2], -1)
        share = nn.softmax(
            conv(joined.shape[-1], 1, name="weigh")(joined).reshape(stacked.shape), -2
        )
        self.sow("intermediates", "share", share)
        width = stacked.shape[-1]
        joint = nn.relu(conv(width, 1, name="joint")((share * stacked).reshape(joined.shape)))
        passed = {}
        for task in self.tasks:
            squeezed = nn.relu(
                dense(max(1, width // 4), name=f"{task}_squeeze")(global_average_pool(joint))
            )
            excited = nn.sigmoid(dense(width, name=f"{task}_excite")(squeezed))
            passed[task] = features[task] + excited[:, None, None] * joint
        return passed


class Branch(nn.Module):
    """One task's distillation at every scale, and the way down from fine to coarse."""

    @nn.compact
    def __call__(self, own, others):
        distilled = [
            Distillation(name=f"distillation_{i}")(x, rest)
            for i, (x, rest) in enumerate(zip(own, others, strict=True))
        ]
        return Gather(name="gather")(distilled)
