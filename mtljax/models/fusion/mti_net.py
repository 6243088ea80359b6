"""Multi-scale task interaction network."""

import functools

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from mtljax.models.fusion.base import Features, Fusion, Gather, split_scales
from mtljax.models.fusion.pad_net import Distillation, InitialFeatures
from mtljax.models.layers import NormKind, conv, dense, global_average_pool, resize
from mtljax.models.partition import TASK_PREFIX


class MTINet(Fusion):
    """MTI-Net: tasks exchange features at several scales, and coarse scales inform finer ones.

    From the coarsest scale i to the finest: F_ti = ReLU(norm(conv([trunk_i; up(P_t,i+1)]))), with
    the propagation P_t = F_t + SE_t(joint), where joint is a projection of all tasks' features
    weighted by a softmax over tasks. At each scale, tasks exchange messages as in `PADNet`. Finer
    results are then added to coarser ones, so that every stage a head reads contains all scales
    (the paper aggregates upwards, which is the task of the head here). A fusion cannot access
    labels: it distills features, not intermediate predictions, supervised by the final losses only.

    Trunk, F_ti and propagation are shared; all later modules are task-specific. The representation
    for `level="features"` is all F_ti. Gates are sown as `intermediates`.

    Attributes:
      scales: Number of last stages of the trunk to use.
      width: Channels of F_ti.
      norm: Normalization of F_ti.
      axis_name: Axis of `norm="batch"` inside `pmap` or `shard_map`; see `Norm`.

    References:
      Vandenhende et al., 2020, arXiv:2001.06902
    """

    scales: int = 3
    width: int = 64
    norm: NormKind = "batch"
    axis_name: str | None = None

    @nn.compact
    def __call__(self, image: Array, *, train: bool) -> dict[str, Features]:
        lower, maps = split_scales(self, "mti_net", self.scales, image, train)
        layer = functools.partial(InitialFeatures, self.width, self.norm, self.axis_name)
        levels: list[dict[str, Array]] = []
        for i, x in reversed(list(enumerate(maps))):
            inputs = dict.fromkeys(self.tasks, x)
            if levels:
                propagated = Propagation(self.tasks, name=f"propagation_{i}")(levels[0])
                inputs = {
                    t: jnp.concatenate([x, resize(p, x.shape[1:3])], -1)
                    for t, p in propagated.items()
                }
            levels.insert(
                0, {t: layer(name=f"{t}_features_{i}")(y, train) for t, y in inputs.items()}
            )
        lower, levels = self.represent((lower, levels))
        fused = {}
        for task in self.tasks:
            rest = [[level[other] for other in self.tasks if other != task] for level in levels]
            branch = Branch(name=TASK_PREFIX + task)
            fused[task] = (*lower, *branch([level[task] for level in levels], rest))[-self.taps :]
        return fused


class Propagation(nn.Module):
    """Features that a coarser scale passes to a finer one, for each task.

    The sum of the features of the task and of a gated joint representation of all tasks.
    """

    tasks: tuple[str, ...]
    """Names of the tasks."""

    @nn.compact
    def __call__(self, features: dict[str, Array]) -> dict[str, Array]:
        stacked = jnp.stack([features[task] for task in self.tasks], -2)
        joined = stacked.reshape(*stacked.shape[:-2], -1)
        logits = conv(joined.shape[-1], 1, name="weigh")(joined).reshape(stacked.shape)
        share = nn.softmax(logits, -2)
        self.sow("intermediates", "share", share)
        width = stacked.shape[-1]
        joint = nn.relu(conv(width, 1, name="joint")((share * stacked).reshape(joined.shape)))
        propagated = {}
        for task in self.tasks:
            pooled = global_average_pool(joint)
            squeezed = nn.relu(dense(max(1, width // 4), name=f"{task}_squeeze")(pooled))
            excited = nn.sigmoid(dense(width, name=f"{task}_excite")(squeezed))
            propagated[task] = features[task] + excited[:, None, None] * joint
        return propagated


class Branch(nn.Module):
    """Distillation of one task at every scale, then aggregation from fine to coarse."""

    @nn.compact
    def __call__(
        self, levels: list[Float[Array, "B h w C"]], rest: list[list[Float[Array, "B h w C"]]]
    ) -> Features:
        distilled = [
            Distillation(name=f"distillation_{i}")(x, others)
            for i, (x, others) in enumerate(zip(levels, rest, strict=True))
        ]
        return Gather(name="gather")(distilled)
