"""Hard parameter sharing."""

from jaxtyping import Array

from mtljax.models.fusion.base import Features, Fusion


class HardSharing(Fusion):
    """Hard parameter sharing: all heads read the features of one trunk.

    References:
      Caruana, 1997, "Multitask Learning"
    """

    def __call__(self, image: Array, *, train: bool) -> dict[str, Features]:
        return self.share_features(self.run_trunk(self.trunk, image, train))
