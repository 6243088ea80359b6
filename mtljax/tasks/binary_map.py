"""Base class of tasks with a binary label per pixel."""

import abc
import dataclasses
from typing import Any, Literal, Self

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from mtljax.tasks import checks, drawing, parsing
from mtljax.tasks.dense import PixelLosses, PixelTask
from mtljax.tasks.distances import sigmoid_distance
from mtljax.tasks.scaled import rounded
from mtljax.tasks.warps import Pixels, Resize, Warp

PositiveWeight = float | Literal["balanced"]
"""Weight of positive pixels, or `balanced`; see `BinaryMap`."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class BinaryMap(PixelTask):
    """Binary label per pixel. Output: logits [B, H, W]. Labels: 0 or 1, [B, H, W].

    Where labels are reduced in size, a pixel is positive if any of its old pixels is.

    Loss: cross entropy with weight 2w, w = `positive_weight`, for positive pixels, else 2(1 - w).
    """

    positive_weight: PositiveWeight = 0.5
    """Weight of positive against negative pixels, in (0, 1); `balanced`: the fraction of negative
    pixels in the training labels, so that both count equally."""
    threshold: float | None = None
    """Lowest value of a positive pixel in label files; None accepts two values only: 0 and 1, or 0
    and white (255, or 65535 in 16 bits)."""

    one_file_type = False

    def __post_init__(self) -> None:
        super().__post_init__()
        weight = self.positive_weight
        valid = weight == "balanced" if isinstance(weight, str) else 0 < weight < 1
        checks.require_setting(self, "positive_weight", valid, "in (0, 1), or 'balanced'")

    @property
    def derived(self) -> tuple[str, ...]:
        return ("positive_weight",) if self.positive_weight == "balanced" else ()

    def resolve(self, labels: Int[np.ndarray, "N H W"]) -> Self:
        if not self.derived:
            return self
        negative = 1 - (np.count_nonzero(labels) + 1) / (labels.size + 2)
        return dataclasses.replace(self, positive_weight=rounded(negative))

    @property
    def _weight(self) -> float:
        if isinstance(self.positive_weight, str):
            raise ValueError(
                f"task {self.name!r}: positive_weight='balanced' is computed from the training "
                "labels; call task.resolve(labels) first"
            )
        return self.positive_weight

    def head(self) -> nn.Module:
        return self.dense_head(outputs=1, squeeze=True)

    def pixel_losses(self, output: Float[Array, "B H W"], label: Array) -> PixelLosses:
        truth, w = label.astype(output.dtype), self._weight
        positive, negative = jax.nn.softplus(-output), jax.nn.softplus(output)
        losses = 2 * (w * truth * positive + (1 - w) * (1 - truth) * negative)
        return losses, jnp.ones(label.shape, bool)

    def distance(self, output: Array, target: Array, temperature: float) -> Float[Array, " B"]:
        return sigmoid_distance(output, target, temperature)

    def check(self, labels: np.ndarray) -> None:
        checks.require_shape(self.name, labels, (None, None))
        checks.require(self.name, (labels == 0) | (labels == 1), labels, "must be 0 or 1")

    @property
    @abc.abstractmethod
    def limits(self) -> Float[np.ndarray, " K"]:
        """Probability thresholds of the metrics, in ascending order."""

    def constant_output(self, labels: np.ndarray, size: Pixels) -> Float[np.ndarray, "H W"]:
        """Fraction of positive pixels, weighted as in the loss, which minimizes the loss.

        It is at least the lowest threshold: by all metrics of these tasks, a map that is positive
        everywhere is better than one that is negative everywhere.
        """
        positive = np.count_nonzero(labels) + 1
        odds = positive / (labels.size + 2 - positive)
        odds = odds * self._weight / (1 - self._weight)
        return np.full(size, max(np.float32(np.log(odds)), _logits(self.limits)[0]))

    def parse(self, value: Any) -> Int[np.ndarray, "H W"]:
        return parsing.binary_plane(value, self.threshold)

    def placeholder(self, size: Pixels) -> Int[np.ndarray, "H W"]:
        return np.zeros(size, np.int32)

    def warp(self, label: Array, warp: Warp) -> Array:
        return warp.largest(label) if isinstance(warp, Resize) else warp.plane(label)

    def decode(self, output: Float[Array, "B H W"]) -> Float[Array, "B H W"]:
        return jax.nn.sigmoid(output)

    def restore(self, prediction: Array, warp: Warp) -> Array:
        return warp.smooth(prediction[..., None])[..., 0]

    def picture(self, value: np.ndarray, image: np.ndarray) -> drawing.RGB:
        return drawing.paint_values(value, 0, 1, "gray")


def exceeds(
    logits: Float[Array, "B H W"], limits: Float[np.ndarray, " K"]
) -> Bool[Array, "B H W K"]:
    """Returns the mask of probabilities that are at or above each threshold."""
    return logits[..., None] >= _logits(limits).reshape(1, 1, 1, -1)


def _logits(probabilities: Float[np.ndarray, " K"]) -> Float[np.ndarray, " K"]:
    return np.log(probabilities / (1 - probabilities)).astype(np.float32)
