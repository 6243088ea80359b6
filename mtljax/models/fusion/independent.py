"""Late fusion of independent trunks."""

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array

from mtljax.models.fusion.base import Features, Fusion


class Independent(Fusion):
    """One trunk per task; every head reads the concatenated features of all trunks.

    No layer is shared, but every loss depends on every trunk through the concatenation, so all
    trunks count as shared parameters for the balancer.
    """

    @nn.compact
    def __call__(self, image: Array, *, train: bool) -> dict[str, Features]:
        runs = [self.run_trunk(self.copy_trunk(task), image, train) for task in self.tasks]
        return self.share_features(
            tuple(jnp.concatenate(level, -1) for level in zip(*runs, strict=True))
        )
