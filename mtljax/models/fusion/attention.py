"""Cross-task attention: each task's features look at the other tasks' features."""

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from mtljax.models.fusion.base import Fusion
from mtljax.models.partition import TASK_PREFIX


class CrossTaskAttention(Fusion):
    """One trunk; each task adapts its last features, then attends to the other tasks' features.

    For task t with features f_t: f_t + attention(query = f_t, key = value = all f_s, s != t), by
    multi-head dot-product attention over all positions of the other tasks, with layer
    normalisation before it. A feature map gives a token per position; a vector is cut into `tokens`
    pieces, each a token, so that there is something to choose from. With one task the adapted
    features go on as they are.

    Every loss reaches every adapter, so these are shared; a task's attention is task-specific. The
    representation for `level="features"` is the adapted features, raw and normalised. Attention
    weights are sown as `intermediates`.

    Attributes:
      heads: Attention heads; must divide the width of a token.
      tokens: Pieces of a vector; must divide its width.

    References:
      Vaswani et al., 2017, arXiv:1706.03762, for the attention
    """

    heads: int = 4
    tokens: int = 8

    @nn.compact
    def __call__(self, image, *, train):
        *lower, last = self.run_trunk(self.trunk, image, train)
        adapted = {
            task: nn.relu(nn.Dense(last.shape[-1], name=f"{task}_adapter")(last))
            for task in self.tasks
        }
        tokens = {task: self.tokenize(x) for task, x in adapted.items()}
        normed = {task: nn.LayerNorm(name=f"{task}_norm")(x) for task, x in tokens.items()}
        lower, tokens, normed = self.represent((lower, tokens, normed))
        fused = {}
        for task in self.tasks:
            others = [normed[other] for other in self.tasks if other != task]
            seen = self.attend(task, normed[task], others) if others else 0.0
            fused[task] = (*lower, (tokens[task] + seen).reshape(last.shape))
        return fused

    def tokenize(self, features: Float[Array, "B *space F"]) -> Float[Array, "B N f"]:
        """Positions of a map, or pieces of a vector."""
        batch, width = features.shape[0], features.shape[-1]
        if features.ndim > 2:
            return features.reshape(batch, -1, width)
        if width % self.tokens:
            raise ValueError(
                f"fusion attention: tokens={self.tokens} does not divide the trunk's width {width}"
            )
        return features.reshape(batch, self.tokens, -1)

    def attend(
        self, task: str, query: Float[Array, "B N f"], others: list[Float[Array, "B N f"]]
    ) -> Float[Array, "B N f"]:
        width = query.shape[-1]
        if width % self.heads:
            raise ValueError(
                f"fusion attention: heads={self.heads} does not divide the token width {width}"
            )
        attention = nn.MultiHeadDotProductAttention(self.heads, name=TASK_PREFIX + task)
        seen = jnp.concatenate(others, 1)
        return attention(query, seen, seen, sow_weights=True)
