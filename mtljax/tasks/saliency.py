"""Saliency: is this pixel part of what a person looks at?"""

import dataclasses

import numpy as np

from mtljax.tasks.binary_map import BinaryMap, passes
from mtljax.tasks.metric_spec import MetricSpec
from mtljax.tasks.streaming import PerExample

BETA_SQUARED = 0.3


@dataclasses.dataclass(frozen=True, kw_only=True)
class Saliency(BinaryMap):
    """Salient or not, per pixel. Output: logits [B, H, W]. Labels: 0 or 1, [B, H, W].

    Loss: that of `BinaryMap`.

    Metrics: at each of 15 thresholds 0.20, 0.25, ... 0.90, precision P, recall R and IoU of each
    image, each averaged over images; `max_f` is the largest (1 + b) P R / (b P + R), b = 0.3, and
    `miou` the largest mean IoU of the salient pixels. A measure of an image that has nothing to
    divide by is 1 if the prediction is right (nothing there, nothing found), otherwise 0.

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
    def limits(self):
        return np.arange(20, 91, 5) / 100

    @property
    def metrics(self):
        return _Regions(self.limits)


class _Regions(PerExample):
    """Of each image: salient pixels, and per threshold those predicted and those that are both."""

    names = ("max_f", "miou")

    def __init__(self, limits: np.ndarray):
        self.limits = limits

    def describe(self, output, label):
        truth = (label != 0)[..., None]
        predicted = passes(output, self.limits)
        return {
            "true": truth.sum((1, 2, 3)),
            "predicted": predicted.sum((1, 2)),
            "both": (predicted & truth).sum((1, 2)),
        }

    def summarise(self, rows):
        true, predicted, both = rows["true"][:, None], rows["predicted"], rows["both"]
        nothing = (true == 0) & (predicted == 0)
        mean = lambda over: np.where(nothing, 1.0, both / np.maximum(over, 1)).mean(0)
        precision, recall = mean(predicted), mean(np.broadcast_to(true, both.shape))
        divisor = BETA_SQUARED * precision + recall
        f = (1 + BETA_SQUARED) * precision * recall / np.where(divisor > 0, divisor, 1.0)
        return {"max_f": float(f.max()), "miou": float(mean(true + predicted - both).max())}
