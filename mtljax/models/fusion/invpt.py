"""Inverted pyramid multi-task transformer."""

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from mtljax.models.fusion.base import Fusion
from mtljax.models.fusion.pyramid import Gather, last_scales
from mtljax.models.layers import conv, dense, resize
from mtljax.models.partition import TASK_PREFIX


class InvPT(Fusion):
    """InvPT: all positions of all tasks attend to each other, at scale after finer scale.

    Each task makes a map from the trunk's coarsest stage. At every scale, coarse to fine, the
    tasks' maps are enlarged to it, get the trunk's map of that scale added, and pass a transformer
    block whose queries are all positions of all tasks and whose keys and values are the same,
    reduced to the coarsest grid. Its scores are w_0 scores + w_1 up(the coarser scale's scores):
    attention is handed on as a message. Then, per task, finer results are added to coarser ones, so
    that whatever stages a head reads tell of all scales. A fusion knows no labels: features are
    exchanged, not intermediate predictions, and supervised by the final losses only.

    All but the last step is shared; that is task-specific. The representation for
    `level="features"` is all tasks' maps of all scales. Attention is sown as `intermediates`.

    Attributes:
      scales: How many of the trunk's last stages.
      width: Channels of a task's map.
      heads: Attention heads; must divide `width`.

    References:
      Ye and Xu, 2022, arXiv:2203.07997
    """

    scales: int = 3
    width: int = 64
    heads: int = 2

    @nn.compact
    def __call__(self, image, *, train):
        if self.width % self.heads:
            raise ValueError(f"fusion invpt: heads={self.heads} does not divide width={self.width}")
        lower, maps = last_scales(self, "invpt", image, train)
        grid = maps[-1].shape[1:3]
        features = jnp.stack(
            [nn.relu(conv(self.width, 3, name=f"{task}_first")(maps[-1])) for task in self.tasks], 1
        )
        scores, levels = None, []
        for i, x in reversed(list(enumerate(maps))):
            features = each(features, lambda y, x=x: resize(y, x.shape[1:3]))
            features += conv(self.width, 1, name=f"scale_{i}")(x)[:, None]
            block = CrossTaskBlock(self.heads, grid, name=f"block_{i}")
            features, scores = block(features, scores)
            levels.insert(0, dict(zip(self.tasks, jnp.moveaxis(features, 1, 0), strict=True)))
        lower, levels = self.represent((lower, levels))
        gather = lambda task: Gather(name=TASK_PREFIX + task)([level[task] for level in levels])
        return {task: (*lower, *gather(task))[-self.taps :] for task in self.tasks}


class CrossTaskBlock(nn.Module):
    """A transformer block over the positions of all tasks' maps together."""

    heads: int
    grid: tuple[int, int]

    @nn.compact
    def __call__(
        self, x: Float[Array, "B T H W C"], before: Float[Array, "B T h w n"] | None
    ) -> tuple[Float[Array, "B T H W C"], Float[Array, "B T H W n"]]:
        batch, width = x.shape[0], x.shape[-1]
        split = lambda y: y.reshape(batch, -1, self.heads, width // self.heads)
        normed = nn.LayerNorm()(x)
        reduced = each(normed, lambda y: resize(y, self.grid))
        query = split(dense(width, name="query")(normed))
        key = split(dense(width, name="key")(reduced))
        value = split(dense(width, name="value")(reduced))

        scores = jnp.einsum("bqhd,bkhd->bqhk", query, key) / (width // self.heads) ** 0.5
        scores = scores.reshape(*x.shape[:-1], -1)
        if before is not None:
            weights = self.param("message", nn.initializers.ones, (2,)).astype(x.dtype)
            handed = each(before, lambda y: resize(y, x.shape[2:4]))
            scores = weights[0] * scores + weights[1] * handed
        by_head = scores.reshape(batch, -1, self.heads, key.shape[1])
        attention = nn.softmax(by_head.astype(jnp.float32)).astype(x.dtype)
        self.sow("intermediates", "attention", attention)
        seen = jnp.einsum("bqhk,bkhd->bqhd", attention, value).reshape(x.shape)
        x = x + dense(width, name="out")(seen)
        hidden = nn.gelu(dense(2 * width, name="widen")(nn.LayerNorm()(x)))
        return x + dense(width, name="narrow")(hidden), scores


def each(x: Float[Array, "B T ..."], function) -> Float[Array, "B T ..."]:
    """`function` of every task's map."""
    flat = function(x.reshape(-1, *x.shape[2:]))
    return flat.reshape(*x.shape[:2], *flat.shape[1:])
