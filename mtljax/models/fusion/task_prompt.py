"""Task prompts in a vision transformer."""

import flax.linen as nn
import jax.numpy as jnp

from mtljax.models.fusion.base import Fusion
from mtljax.models.layers import dense
from mtljax.models.partition import TASK_PREFIX
from mtljax.models.trunks.base import Carry
from mtljax.models.trunks.vit import ViTStage


class TaskPrompt(Fusion):
    """Task prompts: learned tokens per task travel through a ViT with the patches' tokens.

    All tokens attend to each other in every block, so tasks, patches and prompts inform one another
    where features are made. Of a stage's map x and task t's prompts p_t the head reads
    W(x * (1 + a_t) * c_t): spatial attention a_t in (0, 1) = sigmoid(q(p_t) . k(x) / sqrt(d)),
    averaged over the task's prompts, and channel attention c_t in (0, 1) = sigmoid(dense(p_t)).

    The ViT and all prompts are shared; q, k, c_t and W are task-specific. The representation for
    `level="features"` is the maps and the prompts that come out of the ViT. The spatial attention
    is sown as `intermediates`.

    Attributes:
      prompts: Tokens per task.

    References:
      Ye and Xu, 2023, "TaskPrompter: Spatial-Channel Multi-Task Prompting for Dense Scene
      Understanding", ICLR
    """

    prompts: int = 1

    @nn.compact
    def __call__(self, image, *, train):
        first = self.trunk[0]
        if not isinstance(first, ViTStage):
            raise ValueError(
                "fusion task_prompt puts tokens into a vision transformer; take trunk vit_ti, "
                "vit_s or vit_b, or a fusion for any trunk of maps (mtan, pad_net, attention, ...)"
            )
        count = len(self.tasks) * self.prompts
        tokens = self.param(
            "prompts", nn.initializers.truncated_normal(0.02), (1, count, first.width)
        )
        tokens = jnp.broadcast_to(tokens, (image.shape[0], *tokens.shape[1:])).astype(image.dtype)
        outputs = self.run_stages(self.trunk, Carry(image, tokens), train)[-self.taps :]
        levels = self.represent([(x.features, x.rest[:, :count]) for x in outputs])
        fused = {}
        for i, task in enumerate(self.tasks):
            mine = slice(i * self.prompts, (i + 1) * self.prompts)
            read = PromptReader(name=TASK_PREFIX + task)
            fused[task] = read([(x, prompts[:, mine]) for x, prompts in levels])
        return fused


class PromptReader(nn.Module):
    """One task's view of every stage's map, by its prompts."""

    @nn.compact
    def __call__(self, levels):
        read = []
        for i, (x, prompts) in enumerate(levels):
            width = x.shape[-1]
            query = dense(width, name=f"query_{i}")(prompts)
            key = dense(width, name=f"key_{i}")(x)
            spatial = nn.sigmoid(jnp.einsum("bnc,bhwc->bhwn", query, key) / width**0.5)
            self.sow("intermediates", f"spatial_{i}", spatial)
            channel = nn.sigmoid(dense(width, name=f"channel_{i}")(prompts.mean(1)))
            chosen = x * (1 + spatial.mean(-1, keepdims=True)) * channel[:, None, None]
            read.append(dense(width, name=f"project_{i}")(chosen))
        return tuple(read)
