"""Base classes of tasks with spatial outputs."""

import abc
import dataclasses
from typing import Any, Literal

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from mtljax.models.heads import DENSE_HEADS
from mtljax.tasks import checks
from mtljax.tasks.base import SumAndCount, Task
from mtljax.tasks.metric import Present
from mtljax.tasks.streaming import fill_absent, masked_mean, masked_sum, of_rank

Decoder = Literal["linear", "fpn", "aspp"]
"""Kind of decoder; see `DenseTask`."""
PixelLosses = tuple[Float[Array, "B H W"], Bool[Array, "B H W"]]
"""Loss of each pixel and the mask of labeled pixels."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class DenseTask(Task):
    """Task whose head preserves the spatial axes of the image."""

    decoder: Decoder = "fpn"
    """Type of head; see `mtljax.models.heads.DENSE_HEADS`."""
    levels: int = 3
    """Number of final trunk stages that the decoder reads; `linear` reads only the last."""
    width: int = 64
    """Channels of the decoder; `linear` has none."""

    def __post_init__(self) -> None:
        super().__post_init__()
        checks.require_choice(self, "decoder", Decoder)
        checks.require_least(self, 1, "levels", "width")

    @property
    def taps(self) -> int:
        return 1 if self.decoder == "linear" else self.levels

    def dense_head(self, **settings: Any) -> nn.Module:
        """Returns the decoder with these settings of `DenseHead`."""
        return DENSE_HEADS[self.decoder](width=self.width, **settings)


class PixelTask(DenseTask):
    """Task whose loss is the mean over the labeled pixels of all images."""

    @abc.abstractmethod
    def pixel_losses(self, output: Array, label: Array) -> PixelLosses:
        """Returns losses whose values and gradients are finite also for unlabelled pixels."""

    def loss(self, output: Array, label: Array, present: Present) -> SumAndCount:
        losses, valid = self.pixel_losses(output, fill_absent(label, present))
        return masked_sum(losses, valid & of_rank(present, valid.ndim))

    def paste(
        self, label: Array, other: Array, region: Bool[Array, "H W"], weight: Float[Array, ""]
    ) -> Array:
        return jnp.where(of_rank(region, label.ndim), other, label)

    def error(self, output: Array, label: Array) -> Float[Array, " B"]:
        return masked_mean(*self.pixel_losses(output, label))

    def text(self, value: Any) -> str:
        value = np.asarray(value, np.float64)
        finite = value[np.isfinite(value)]
        return f"mean {finite.mean():.2f}" if finite.size else "nothing"
