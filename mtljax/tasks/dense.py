"""What tasks with an output per pixel have in common: the decoder, and means over valid pixels."""

import abc
import dataclasses
from typing import Any, Literal

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from mtljax.models.heads import DENSE_HEADS
from mtljax.tasks.base import Task
from mtljax.tasks.settings import require_choice, require_least
from mtljax.tasks.streaming import fill_absent, of_rank

Decoder = Literal["linear", "fpn", "aspp"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class DenseTask(Task):
    """A task whose head keeps the image's height and width."""

    decoder: Decoder = "fpn"
    """The head; see `mtljax.models.heads.DENSE_HEADS`."""
    levels: int = 3
    """How many of the trunk's last stages the decoder reads; `linear` reads only the last."""
    width: int = 64
    """Channels of the decoder; `linear` has none."""

    def __post_init__(self):
        require_choice(self, "decoder", Decoder)
        require_least(self, 1, "levels", "width")

    @property
    def taps(self):
        return 1 if self.decoder == "linear" else self.levels

    def dense_head(self, **settings: Any) -> nn.Module:
        """The decoder, with `settings` of `DenseHead`."""
        return DENSE_HEADS[self.decoder](width=self.width, **settings)


class PixelTask(DenseTask):
    """A task whose loss is a mean over the pixels that carry a label, in all images alike."""

    @abc.abstractmethod
    def pixel_losses(
        self, output: Array, label: Array
    ) -> tuple[Float[Array, "B H W"], Bool[Array, "B H W"]]:
        """(loss of each pixel, which pixels count).

        Where a pixel does not count, the loss and its gradient must still be finite.
        """

    def loss(self, output, label, present):
        losses, valid = self.pixel_losses(output, fill_absent(label, present))
        valid &= of_rank(present, valid.ndim)
        return jnp.where(valid, losses, 0.0).sum(), valid.sum().astype(jnp.float32)

    def paste(self, label, other, region, share):
        del share
        return jnp.where(of_rank(region, label.ndim), other, label)

    def error(self, output, label):
        losses, valid = self.pixel_losses(output, label)
        axes = tuple(range(1, losses.ndim))
        count = jnp.maximum(valid.sum(axes), 1).astype(losses.dtype)
        return jnp.where(valid, losses, 0.0).sum(axes) / count

    def text(self, value):
        value = np.asarray(value, np.float64)
        known = value[np.isfinite(value)]
        return f"mean {known.mean():.2f}" if known.size else "nothing"
