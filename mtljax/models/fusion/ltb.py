"""Learning to branch."""

import re

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from mtljax.models.fusion.base import Features, Fusion
from mtljax.models.partition import TASK_PREFIX
from mtljax.models.trunks.base import features_of, weighted_sum


class LearningToBranch(Fusion):
    """Learning to branch: the trunk is a tree whose branches are learned.

    The first stage is the root. Every further stage has one copy (node) per task; each node chooses
    its parent among the nodes of the previous stage, and each task its leaf among the last nodes.
    A choice is a vector of logits: in training, the outputs of the parents are mixed by
    softmax((logits + Gumbel noise) / temperature); else the largest logit selects one parent.

    Nodes and the choices between them are shared; the choice of the leaf is task-specific. A head
    that reads several stages gets those of the nodes above its leaf (choices receive no gradient
    through these). The representation for `level="features"` is the outputs of all nodes.

    Attributes:
      temperature: Temperature of the choice in training; lower is closer to discrete.

    References:
      Guo et al., 2020, arXiv:2006.01895
    """

    temperature: float = 1.0

    @nn.nowrap
    def stage_of(self, module: str) -> int | None:
        match = re.fullmatch(r"node_(\d+)_\d+", module)
        return int(match[1]) if match else 0 if module == "root" else None

    @nn.compact
    def __call__(self, image: Array, *, train: bool) -> dict[str, Features]:
        if len(self.trunk) < 2:
            raise ValueError(
                "fusion ltb branches between stages, but this trunk has only one; add stages, or "
                "take fusion none"
            )
        count = len(self.tasks)
        nodes = [self.run_stage(self.copy_stage(0, "root"), image, train)]
        levels, choices = [nodes], [jnp.ones((count, 1))]
        for i in range(1, len(self.trunk)):
            if i > 1:
                choice = Choice(count, count, self.temperature, name=f"choice_{i}")
                choices.append(choice(train))
            parents, nodes = nodes, []
            for n in range(count):
                node = self.copy_stage(i, f"node_{i}_{n}")
                x = weighted_sum(choices[-1][n], parents)
                nodes.append(self.run_stage(node, x, train))
            levels.append(nodes)
        outputs = [[features_of(x) for x in nodes] for nodes in levels[-self.taps :]]
        outputs = self.represent(outputs)
        fused = {}
        for task in self.tasks:
            leaf = Choice(1, count, self.temperature, name=TASK_PREFIX + task)(train)[0]
            features = [weighted_sum(leaf, outputs[-1])]
            for shares, above in zip(choices[::-1], outputs[-2::-1], strict=False):
                leaf = leaf @ jax.lax.stop_gradient(shares)
                features.insert(0, weighted_sum(leaf, above))
            fused[task] = tuple(features)
        return fused


class Choice(nn.Module):
    """Choice of one of `options` for each of `choosers`, as weights that sum to 1."""

    choosers: int
    """Number of choices."""
    options: int
    """Number of options of each choice."""
    temperature: float
    """Temperature of the softmax in training."""

    @nn.compact
    def __call__(self, train: bool) -> Float[Array, "choosers options"]:
        logits = self.param("logits", nn.initializers.zeros, (self.choosers, self.options))
        if not train:
            return jax.nn.one_hot(logits.argmax(-1), self.options)
        noise = jax.random.gumbel(self.make_rng("dropout"), logits.shape)
        return nn.softmax((logits + noise) / self.temperature)
