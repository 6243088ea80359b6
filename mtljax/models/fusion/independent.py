"""A trunk per task, joined late: the baseline that treats tasks as independent."""

import flax.linen as nn
import jax.numpy as jnp

from mtljax.models.fusion.base import Fusion


class Independent(Fusion):
    """A trunk per task; their features are joined (concatenated) and every head reads all of them.

    Nothing is shared while features are made; since every loss reaches every trunk through the
    join, all trunks count as shared parameters for the balancer.
    """

    @nn.compact
    def __call__(self, image, *, train):
        runs = [self.run_trunk(self.copy_trunk(task), image, train) for task in self.tasks]
        return self.hand_over(
            tuple(jnp.concatenate(level, -1) for level in zip(*runs, strict=True))
        )
