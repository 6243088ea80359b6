"""Hard parameter sharing: one trunk, and every head reads its features."""

from mtljax.models.fusion.base import Fusion
from mtljax.models.trunks.base import pooled


class HardSharing(Fusion):
    """Hard parameter sharing: one trunk for all tasks, nothing exchanged after it.

    References:
      Caruana, 1997, "Multitask Learning"
    """

    def __call__(self, image, *, train):
        features = self.run_trunk(self.trunk, image, train)
        if self.pools:
            features = (pooled(features[-1]),)
        return dict.fromkeys(self.tasks, self.represent(features))
