"""Cross-task attention."""

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from mtljax.models.fusion.base import Features, Fusion
from mtljax.models.layers import dense
from mtljax.models.partition import TASK_PREFIX


class CrossTaskAttention(Fusion):
    """Cross-task attention: the adapted features of each task attend to those of all other tasks.

    For task t with features f_t: f_t + attention(query = f_t, key = value = all f_s, s != t), by
    multi-head dot-product attention over all positions of the other tasks, after layer
    normalization. A map has one token per position; a vector is split into `tokens` tokens. With a
    single task the adapted features are returned.

    Every loss depends on every adapter, so adapters are shared; the attention of a task is
    task-specific. The representation for `level="features"` is the adapted features, before and
    after normalization. Attention weights are sown as `intermediates`.

    Attributes:
      heads: Attention heads; must divide the width of a token.
      tokens: Tokens of a vector; must divide its width.

    References:
      Vaswani et al., 2017, arXiv:1706.03762, for the attention
    """

    heads: int = 4
    tokens: int = 8

    @nn.compact
    def __call__(self, image: Array, *, train: bool) -> dict[str, Features]:
        *lower, last = self.run_trunk(self.trunk, image, train)
        width = last.shape[-1]
        adapted = {t: nn.relu(dense(width, name=f"{t}_adapter")(last)) for t in self.tasks}
        tokens = {task: self.tokenize(x) for task, x in adapted.items()}
        normed = {task: nn.LayerNorm(name=f"{task}_norm")(x) for task, x in tokens.items()}
        lower, tokens, normed = self.represent((lower, tokens, normed))
        fused = {}
        for task in self.tasks:
            rest = [normed[other] for other in self.tasks if other != task]
            message = self.attend(task, normed[task], rest) if rest else 0.0
            fused[task] = (*lower, (tokens[task] + message).reshape(last.shape))
        return fused

    def tokenize(self, features: Float[Array, "B *space F"]) -> Float[Array, "B N f"]:
        """One token per position of a map, or `tokens` tokens of a vector."""
        batch, width = features.shape[0], features.shape[-1]
        if features.ndim > 2:
            return features.reshape(batch, -1, width)
        if width % self.tokens:
            raise ValueError(
                f"fusion attention: tokens={self.tokens} does not divide the trunk's width {width}"
            )
        return features.reshape(batch, self.tokens, -1)

    def attend(
        self, task: str, query: Float[Array, "B N f"], rest: list[Float[Array, "B N f"]]
    ) -> Float[Array, "B N f"]:
        """Attention of a task's tokens to the tokens of the other tasks."""
        width = query.shape[-1]
        if width % self.heads:
            raise ValueError(
                f"fusion attention: heads={self.heads} does not divide the token width {width}"
            )
        attention = nn.MultiHeadDotProductAttention(self.heads, name=TASK_PREFIX + task)
        keys = jnp.concatenate(rest, 1)
        return attention(query, keys, keys, sow_weights=True)
