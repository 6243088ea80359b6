"""Saliency: salient or not, per pixel."""

import dataclasses

import numpy as np
from jaxtyping import Array, Float

from mtljax.tasks.binary_map import BinaryMap, exceeds
from mtljax.tasks.metric import Metrics, MetricSpec, TaskMetrics
from mtljax.tasks.streaming import PerExample

BETA_SQUARED = 0.3
"""Weight of precision relative to recall in the F measure."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Saliency(BinaryMap):
    """Salient or not, per pixel. Output: logits [B, H, W]. Labels: 0 or 1, [B, H, W].

    Loss and changes of size: those of `BinaryMap`.

    Metrics: at each of 15 thresholds 0.20, 0.25, ... 0.90, precision P, recall R and IoU of each
    image, each averaged over images; `max_f` is the largest (1 + b) P R / (b P + R), b = 0.3, and
    `miou` the largest mean IoU of the salient pixels. Where an image's divisor is 0, the value is 1
    if no pixel is salient and none is predicted, otherwise 0.

    References:
      Achanta et al., 2009, "Frequency-tuned Salient Region Detection", for b = 0.3; Maninis et
      al., 2019, arXiv:1904.08918, for the protocol
    """

    main_metric = "max_f"
    metric_specs = {
        "max_f": MetricSpec("best F", higher_is_better=True),
        "miou": MetricSpec("mean IoU", higher_is_better=True),
    }

    @property
    def limits(self) -> Float[np.ndarray, " K"]:
        return np.arange(20, 91, 5) / 100

    @property
    def metrics(self) -> Metrics:
        return _Regions(self.limits)


class _Regions(PerExample):
    """Salient pixels of each image, and per threshold the predicted pixels and the intersection."""

    names = ("max_f", "miou")

    def __init__(self, limits: Float[np.ndarray, " K"]):
        self.limits = limits

    def describe(self, output: Array, label: Array) -> dict[str, Array]:
        truth = (label != 0)[..., None]
        predicted = exceeds(output, self.limits)
        counts = {"predicted": predicted.sum((1, 2)), "both": (predicted & truth).sum((1, 2))}
        return {"true": truth.sum((1, 2, 3)), **counts}

    def compute_from_rows(self, rows: dict[str, np.ndarray]) -> TaskMetrics:
        true, predicted, both = rows["true"][:, None], rows["predicted"], rows["both"]
        empty = (true == 0) & (predicted == 0)
        mean = lambda divisor: np.where(empty, 1.0, both / np.maximum(divisor, 1)).mean(0)
        precision, recall = mean(predicted), mean(np.broadcast_to(true, both.shape))
        divisor = BETA_SQUARED * precision + recall
        f = (1 + BETA_SQUARED) * precision * recall / np.where(divisor > 0, divisor, 1.0)
        return {"max_f": float(f.max()), "miou": float(mean(true + predicted - both).max())}
