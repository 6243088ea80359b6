"""Inverted pyramid multi-task transformer."""

import functools
from collections.abc import Callable

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from mtljax.models.fusion.base import Features, Fusion, Gather, split_scales
from mtljax.models.layers import conv, dense, resize
from mtljax.models.partition import TASK_PREFIX


class InvPT(Fusion):
    """InvPT: all positions of all tasks attend to each other, from coarse to fine scales.

    Each task computes a map from the coarsest stage of the trunk. At every scale, coarse to fine,
    the maps of the tasks are enlarged, the map of the trunk at that scale is added, and a
    transformer block follows. Its queries are all positions of all tasks; its keys and values are
    the same positions, reduced to the coarsest grid. Its scores are
    w_0 scores + w_1 up(scores of the coarser scale): attention is passed on as a message. Then, per
    task, finer results are added to coarser ones, so that every stage a head reads contains all
    scales. A fusion has no access to labels: tasks exchange features instead of intermediate
    predictions, supervised by the final losses only.

    The last step is task-specific, all earlier ones are shared. The representation for
    `level="features"` is the maps of all tasks at all scales. Attention is sown as `intermediates`.

    Attributes:
      scales: Number of last stages of the trunk to use.
      width: Channels of the map of a task.
      heads: Attention heads; must divide `width`.

    References:
      Ye and Xu, 2022, arXiv:2203.07997
    """

    scales: int = 3
    width: int = 64
    heads: int = 2

    @nn.compact
    def __call__(self, image: Array, *, train: bool) -> dict[str, Features]:
        if self.width % self.heads:
            raise ValueError(f"fusion invpt: heads={self.heads} does not divide width={self.width}")
        lower, maps = split_scales(self, "invpt", self.scales, image, train)
        grid = maps[-1].shape[1:3]
        features = jnp.stack(
            [nn.relu(conv(self.width, 3, name=f"{task}_first")(maps[-1])) for task in self.tasks], 1
        )
        scores = None
        levels: list[dict[str, Array]] = []
        for i, x in reversed(list(enumerate(maps))):
            features = map_tasks(functools.partial(resize, size=x.shape[1:3]), features)
            features += conv(self.width, 1, name=f"scale_{i}")(x)[:, None]
            block = CrossTaskBlock(self.heads, grid, name=f"block_{i}")
            features, scores = block(features, scores)
            levels.insert(0, dict(zip(self.tasks, jnp.moveaxis(features, 1, 0), strict=True)))
        lower, levels = self.represent((lower, levels))
        gather = lambda task: Gather(name=TASK_PREFIX + task)([level[task] for level in levels])
        return {task: (*lower, *gather(task))[-self.taps :] for task in self.tasks}


class CrossTaskBlock(nn.Module):
    """Transformer block over the positions of the maps of all tasks."""

    heads: int
    """Number of attention heads."""
    grid: tuple[int, ...]
    """Height and width of the maps that keys and values are computed from."""

    @nn.compact
    def __call__(
        self, x: Float[Array, "B T H W C"], coarser: Float[Array, "B T h w n"] | None
    ) -> tuple[Float[Array, "B T H W C"], Float[Array, "B T H W n"]]:
        batch, width = x.shape[0], x.shape[-1]
        split = lambda y: y.reshape(batch, -1, self.heads, width // self.heads)
        normed = nn.LayerNorm()(x)
        reduced = map_tasks(functools.partial(resize, size=self.grid), normed)
        query = split(dense(width, name="query")(normed))
        key = split(dense(width, name="key")(reduced))
        value = split(dense(width, name="value")(reduced))

        scores = jnp.einsum("bqhd,bkhd->bqhk", query, key) / (width // self.heads) ** 0.5
        scores = scores.reshape(*x.shape[:-1], -1)
        if coarser is not None:
            weights = self.param("message", nn.initializers.ones, (2,)).astype(x.dtype)
            message = map_tasks(functools.partial(resize, size=x.shape[2:4]), coarser)
            scores = weights[0] * scores + weights[1] * message
        by_head = scores.reshape(batch, -1, self.heads, key.shape[1])
        attention = nn.softmax(by_head.astype(jnp.float32)).astype(x.dtype)
        self.sow("intermediates", "attention", attention)
        attended = jnp.einsum("bqhk,bkhd->bqhd", attention, value).reshape(x.shape)
        x = x + dense(width, name="out")(attended)
        hidden = nn.gelu(dense(2 * width, name="widen")(nn.LayerNorm()(x)))
        return x + dense(width, name="narrow")(hidden), scores


def map_tasks(
    function: Callable[[Array], Array], x: Float[Array, "B T ..."]
) -> Float[Array, "B T ..."]:
    """Applies a batched function to the map of every task."""
    flat = function(x.reshape(-1, *x.shape[2:]))
    return flat.reshape(*x.shape[:2], *flat.shape[1:])
