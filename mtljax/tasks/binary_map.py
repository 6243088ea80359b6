"""What tasks that ask yes or no of every pixel have in common."""

import abc
import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from mtljax.tasks.base import require, require_shape
from mtljax.tasks.dense import PixelTask
from mtljax.tasks.drawing import paint_values
from mtljax.tasks.raw import yes_or_no
from mtljax.tasks.soft import sigmoid_distance


@dataclasses.dataclass(frozen=True, kw_only=True)
class BinaryMap(PixelTask):
    """Yes or no, per pixel. Output: logits [B, H, W]. Labels: 1 or 0, [B, H, W].

    Loss: cross entropy with weight 2w where the answer is yes and 2(1 - w) where it is no,
    w = `positive_weight`.
    """

    positive_weight: float = 0.5
    """Weight of yes against no, in (0, 1)."""

    def __post_init__(self):
        super().__post_init__()
        if not 0 < self.positive_weight < 1:
            raise ValueError(
                f"task {self.name!r}: positive_weight must be in (0, 1), not {self.positive_weight}"
            )

    def head(self):
        return self.dense_head(outputs=1, squeeze=True)

    def pixel_losses(self, output, label):
        truth, w = label.astype(output.dtype), self.positive_weight
        yes, no = jax.nn.softplus(-output), jax.nn.softplus(output)
        losses = 2 * (w * truth * yes + (1 - w) * (1 - truth) * no)
        return losses, jnp.ones(label.shape, bool)

    def distance(self, output, target, temperature):
        return sigmoid_distance(output, target, temperature)

    def check(self, labels):
        require_shape(self.name, labels, (None, None))
        require(self.name, (labels == 0) | (labels == 1), labels, "must be 0 or 1")

    @property
    @abc.abstractmethod
    def limits(self) -> Float[np.ndarray, " K"]:
        """The probabilities that the metrics cut at, rising."""

    def constant(self, labels, size):
        """The share of yes, weighted as in the loss: what costs least.

        But not below the lowest limit: to say yes everywhere beats to say it nowhere by every
        metric here.
        """
        yes = np.count_nonzero(labels) + 1
        odds = yes / (labels.size + 2 - yes) * self.positive_weight / (1 - self.positive_weight)
        return np.full(size, max(np.float32(np.log(odds)), _logits(self.limits)[0]))

    def read(self, value):
        return yes_or_no(value)

    def blank(self, size):
        return np.zeros(size, np.int32)

    def warp(self, label, warp):
        return warp.plane(label)

    def decode(self, output):
        """[B, H, W]: the probability of yes."""
        return jax.nn.sigmoid(output)

    def picture(self, value, image):
        del image
        return paint_values(value, 0, 1, "gray")


def passes(
    logits: Float[Array, "B H W"], limits: Float[np.ndarray, " K"]
) -> Bool[Array, "B H W K"]:
    """Which probabilities reach which limits."""
    return logits[..., None] >= _logits(limits).reshape(1, 1, 1, -1)


def _logits(probabilities: Float[np.ndarray, " K"]) -> Float[np.ndarray, " K"]:
    return np.log(probabilities / (1 - probabilities)).astype(np.float32)
