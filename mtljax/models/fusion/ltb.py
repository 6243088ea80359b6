"""Learning to branch."""

import re

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from mtljax.models.fusion.base import Fusion
from mtljax.models.partition import TASK_PREFIX
from mtljax.models.trunks.base import features_of, weighted_sum


class LearningToBranch(Fusion):
    """Learning to branch: the trunk grows into a tree whose branchings are learned with it.

    The first stage is the root. Every further stage has as many copies (nodes) as there are tasks;
    each node chooses its parent among the nodes of the stage before, and each task its leaf among
    those of the last. A choice is a vector of logits: in training, the parents' outputs are mixed
    by softmax((logits + Gumbel noise) / temperature); otherwise the largest logit alone counts,
    so that the tree is discrete.

    Nodes and the choices between them are shared, a task's choice of its leaf is task-specific. A
    head that reads several stages gets those of the nodes above its leaf (choices do not learn
    through these). The representation for `level="features"` is what all nodes give.

    Attributes:
      temperature: Of the choice in training; the lower, the harder.

    References:
      Guo et al., 2020, arXiv:2006.01895
    """

    temperature: float = 1.0

    @nn.nowrap
    def stage_of(self, module: str) -> int | None:
        found = re.fullmatch(r"node_(\d+)_\d+", module)
        return int(found[1]) if found else 0 if module == "root" else None

    @nn.compact
    def __call__(self, image, *, train):
        if len(self.trunk) < 2:
            raise ValueError(
                "fusion ltb branches between stages, and this trunk has only one; give it more "
                "stages or take fusion none"
            )
        count = len(self.tasks)
        nodes = [self.run_stage(self.copy_stage(0, "root"), image, train)]
        levels, choices = [nodes], [jnp.ones((count, 1))]
        for i in range(1, len(self.trunk)):
            if i > 1:
                choice = Choice(count, count, self.temperature, name=f"choice_{i}")
                choices.append(choice(train))
            parents, chosen = nodes, choices[-1]
            nodes = [
                self.run_stage(
                    self.copy_stage(i, f"node_{i}_{n}"), weighted_sum(chosen[n], parents), train
                )
                for n in range(count)
            ]
            levels.append(nodes)
        levels = [[features_of(x) for x in nodes] for nodes in levels[-self.taps :]]
        levels = self.represent(levels)
        fused = {}
        for task in self.tasks:
            leaf = Choice(1, count, self.temperature, name=TASK_PREFIX + task)(train)[0]
            features = [weighted_sum(leaf, levels[-1])]
            for choice, nodes in zip(choices[::-1], levels[-2::-1], strict=False):
                leaf = leaf @ jax.lax.stop_gradient(choice)
                features.insert(0, weighted_sum(leaf, nodes))
            fused[task] = tuple(features)
        return fused


class Choice(nn.Module):
    """A choice of one of `options` for each of `choosers`, as shares that sum to 1."""

    choosers: int
    options: int
    temperature: float

    @nn.compact
    def __call__(self, train: bool) -> Float[Array, "choosers options"]:
        logits = self.param("logits", nn.initializers.zeros, (self.choosers, self.options))
        if not train:
            return jax.nn.one_hot(logits.argmax(-1), self.options)
        noise = jax.random.gumbel(self.make_rng("dropout"), logits.shape)
        return nn.softmax((logits + noise) / self.temperature)
