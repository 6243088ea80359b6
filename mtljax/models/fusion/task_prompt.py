"""Task prompts in a vision transformer."""

from typing import cast

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array

from mtljax.models.fusion.base import Features, Fusion
from mtljax.models.layers import dense
from mtljax.models.partition import TASK_PREFIX
from mtljax.models.trunks.base import Carry
from mtljax.models.trunks.vit import ViTStage


class TaskPrompt(Fusion):
    """Task prompts: learned tokens per task pass through a ViT with the tokens of the patches.

    All tokens attend to each other in every block. For the map x of a stage and the prompts p_t of
    task t, the head reads W(x * (1 + a_t) * c_t), with spatial attention a_t in (0, 1) =
    sigmoid(q(p_t) . k(x) / sqrt(d)), averaged over the prompts of the task, and channel attention
    c_t in (0, 1) = sigmoid(dense(p_t)).

    The ViT and all prompts are shared; q, k, c_t and W are task-specific. The representation for
    `level="features"` is the maps and prompts after the stages. a_t is sown as `intermediates`.

    Attributes:
      prompts: Tokens per task.

    References:
      Ye and Xu, 2023, "TaskPrompter: Spatial-Channel Multi-Task Prompting for Dense Scene
      Understanding", ICLR
    """

    prompts: int = 1

    @nn.compact
    def __call__(self, image: Array, *, train: bool) -> dict[str, Features]:
        first = self.trunk[0]
        if not isinstance(first, ViTStage):
            raise ValueError(
                "fusion task_prompt requires a vision transformer; take trunk vit_ti, vit_s or "
                "vit_b, or a fusion for any trunk with maps (mtan, pad_net, attention, ...)"
            )
        count = len(self.tasks) * self.prompts
        tokens = self.param(
            "prompts", nn.initializers.truncated_normal(0.02), (1, count, first.width)
        )
        tokens = jnp.broadcast_to(tokens, (image.shape[0], *tokens.shape[1:])).astype(image.dtype)
        outputs = cast(tuple[Carry, ...], self.run_stages(self.trunk, Carry(image, tokens), train))
        levels = [(x.features, x.rest[:, :count]) for x in outputs[-self.taps :]]
        levels = self.represent(levels)
        fused = {}
        for i, task in enumerate(self.tasks):
            part = slice(i * self.prompts, (i + 1) * self.prompts)
            reader = PromptReader(name=TASK_PREFIX + task)
            fused[task] = reader([(x, prompts[:, part]) for x, prompts in levels])
        return fused


class PromptReader(nn.Module):
    """Features of one task: the map of every stage, weighted by the prompts of the task."""

    @nn.compact
    def __call__(self, levels: list[tuple[Array, Array]]) -> Features:
        outputs = []
        for i, (x, prompts) in enumerate(levels):
            width = x.shape[-1]
            query = dense(width, name=f"query_{i}")(prompts)
            key = dense(width, name=f"key_{i}")(x)
            spatial = nn.sigmoid(jnp.einsum("bnc,bhwc->bhwn", query, key) / width**0.5)
            self.sow("intermediates", f"spatial_{i}", spatial)
            channel = nn.sigmoid(dense(width, name=f"channel_{i}")(prompts.mean(1)))
            weighted = x * (1 + spatial.mean(-1, keepdims=True)) * channel[:, None, None]
            outputs.append(dense(width, name=f"project_{i}")(weighted))
        return tuple(outputs)
