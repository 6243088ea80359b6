"""Hard parameter sharing: one trunk, and every head reads its features."""

from mtljax.models.fusion.base import Fusion


class HardSharing(Fusion):
    """Hard parameter sharing: one trunk for all tasks, nothing exchanged after it.

    References:
      Caruana, 1997, "Multitask Learning"
    """

    def __call__(self, image, *, train):
        return self.hand_over(self.run_trunk(self.trunk, image, train))
