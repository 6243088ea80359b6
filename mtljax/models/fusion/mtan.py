"""Multi-task attention network."""

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array

from mtljax.models.fusion.base import Features, Fusion, require_maps
from mtljax.models.layers import Norm, NormKind, conv, resize
from mtljax.models.partition import TASK_PREFIX
from mtljax.models.trunks.base import features_of


class MTAN(Fusion):
    """Multi-task attention network: one trunk, and per task a mask on the output of every stage.

    With p_j the map of stage j, task t computes a_j = m_j * p_j, with the mask m_j in (0, 1) =
    sigmoid(norm(h(ReLU(norm(g([p_j; f_j(a_{j-1})])))))), where g and h are 1x1 convolutions of the
    task and f_j is a 3x3 convolution shared by all tasks, resized to p_j. (The paper reads a stage
    in its middle for the mask and masks its end; a stage is one module here, so both are its
    output.) The trunk and the f_j are shared, the masks are task-specific. As the f_j follow masks,
    `level="features"` has no representation. Masks are sown as `intermediates`.

    Attributes:
      norm: Normalization after each convolution.
      axis_name: Axis of `norm="batch"` inside `pmap` or `shard_map`; see `Norm`.

    References:
      Liu et al., 2018, arXiv:1803.10704
    """

    norm: NormKind = "batch"
    axis_name: str | None = None

    @nn.compact
    def __call__(self, image: Array, *, train: bool) -> dict[str, Features]:
        shared = [features_of(x) for x in self.run_stages(self.trunk, image, train)]
        require_maps("mtan", shared)
        masks = {t: Masks(self.norm, self.axis_name, name=TASK_PREFIX + t) for t in self.tasks}
        bias = self.norm == "none"
        previous: dict[str, Array | None] = dict.fromkeys(self.tasks)
        levels: list[dict[str, Array]] = []
        for i, x in enumerate(shared):
            masked = {task: masks[task](i, x, previous[task], train) for task in self.tasks}
            levels.append(masked)
            if i + 1 < len(shared):
                following = shared[i + 1]
                extract = conv(following.shape[-1], 3, use_bias=bias, name=f"pass_{i}")
                norm = Norm(self.norm, self.axis_name, name=f"pass_norm_{i}")
                previous = {
                    task: resize(nn.relu(norm(extract(a), train)), following.shape[1:3])
                    for task, a in masked.items()
                }
        return {task: tuple(level[task] for level in levels[-self.taps :]) for task in self.tasks}


class Masks(nn.Module):
    """Masks of one task: a pair of 1x1 convolutions per stage."""

    norm: NormKind
    """Normalization of each convolution."""
    axis_name: str | None
    """Axis of batch normalization; see `Norm`."""

    @nn.compact
    def __call__(self, index: int, x: Array, previous: Array | None, train: bool) -> Array:
        layer = lambda name, y: Norm(self.norm, self.axis_name, name=f"{name}_norm_{index}")(
            conv(x.shape[-1], 1, use_bias=self.norm == "none", name=f"{name}_{index}")(y), train
        )
        inputs = x if previous is None else jnp.concatenate([x, previous], -1)
        mask = nn.sigmoid(layer("choose", nn.relu(layer("look", inputs))))
        self.sow("intermediates", f"mask_{index}", mask)
        return mask * x
