"""Semantic segmentation: one class per pixel."""

import dataclasses
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from mtljax.tasks import checks, drawing, parsing
from mtljax.tasks.base import Changes, SumAndCount
from mtljax.tasks.class_losses import SoftmaxTask, dice_losses, softmax_losses
from mtljax.tasks.dense import PixelLosses, PixelTask
from mtljax.tasks.distances import softmax_distance
from mtljax.tasks.metric import Metrics, MetricSpec, Present, TaskMetrics
from mtljax.tasks.streaming import (
    ConfusionMatrix,
    fill_absent,
    has_class,
    log_frequencies,
    masked_sum,
    of_rank,
)
from mtljax.tasks.warps import Pixels, Warp

Logits = Float[Array, "B H W C"]
"""Logits of the classes of each pixel."""
MAX_CLASSES = 65536
"""Number of classes that masks of 16 bits can have."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Segmentation(SoftmaxTask, PixelTask):
    """One of `num_classes` per pixel. Output: logits [B, H, W, C]. Labels: integers [B, H, W].

    Loss: cross entropy, its mean over all labeled pixels, with the options of
    `mtljax.tasks.class_losses`. Metrics, from one confusion matrix over all pixels of the data set:
    IoU of a class = true and predicted / (true or predicted), `miou` its mean over the classes that
    are true or predicted anywhere (other classes have no IoU, NaN in `iou`), and `pixel_accuracy`,
    the fraction of labeled pixels in the right class.
    """

    ignore: int | None = 255
    """Label of pixels that do not count, also in files."""
    first: int = 0
    """Value of class 0 in masks that are read from files; 1 if they count from 1."""
    values: tuple[int, ...] = ()
    """Value of each class in masks that are read from files, such as 0 255; replaces `first`."""
    colors: tuple[tuple[int, int, int], ...] = ()
    """Red, green and blue of each class in masks that are read from files, as in CamVid."""
    ignored_colors: tuple[tuple[int, int, int], ...] = ()
    """Further colors, of pixels that do not count."""
    dice: float = 0.0
    """Weight of the Dice loss, such as 1, which is added to the cross entropy: the mean over images
    and their classes of 1 - 2 sum p t / (sum p^2 + sum t^2). Images count in proportion to their
    labeled pixels (with `class_weights`, to their sum of weights)."""

    fewest_classes = 2
    one_file_type = False
    main_metric = "miou"
    metric_specs = {
        "miou": MetricSpec("mean IoU", higher_is_better=True),
        "pixel_accuracy": MetricSpec("pixel accuracy", higher_is_better=True, percent=True),
        "iou": MetricSpec("IoU of each class"),
    }

    def __post_init__(self) -> None:
        if not (self.num_classes or self.class_names):
            object.__setattr__(self, "num_classes", len(self.values or self.colors))
        super().__post_init__()
        for field in ("values", "colors"):
            codes = getattr(self, field)
            rule = f"one different entry for each of {self.num_classes} classes"
            complete = len(codes) == len(set(codes)) == self.num_classes
            checks.require_setting(self, field, not codes or complete, rule)
        checks.require_setting(self, "dice", 0 <= self.dice < np.inf, ">= 0")
        rule = "left out without `ignore`, the label of their pixels"
        is_valid = self.ignore is not None or not self.ignored_colors
        checks.require_setting(self, "ignored_colors", is_valid, rule)
        rule = "left out if values are given"
        checks.require_setting(self, "colors", not (self.colors and self.values), rule)

    def head(self) -> nn.Module:
        return self.dense_head(outputs=self.num_classes)

    @property
    def _ignored(self) -> int:
        """Label of pixels that do not count: `ignore`, unless it is a class in labels.

        Files may have 0 for such pixels and 1 for class 0.
        """
        has_own_values = bool(self.first or self.values or self.colors)
        is_class = has_own_values and self.ignore in range(self.num_classes or 1)
        return -1 if self.ignore is None or is_class else self.ignore

    def _has_class(self, label: Any) -> Bool[Array, "..."]:
        return has_class(label, self.num_classes or MAX_CLASSES, self._ignored)

    def loss(self, output: Logits, label: Array, present: Present) -> SumAndCount:
        label = fill_absent(label, present)
        mask = self._has_class(label) & of_rank(present, label.ndim)
        target = jax.nn.one_hot(jnp.where(mask, label, 0), self.num_classes)
        losses, weights = softmax_losses(output, target, self.loss_settings)
        total, count = masked_sum(losses, mask, weights)
        if self.dice:
            of_image = jnp.where(mask, weights, 0.0).sum((1, 2))
            total += self.dice * (of_image * dice_losses(output, target, mask)).sum()
        return total, count

    def pixel_losses(self, output: Logits, label: Array) -> PixelLosses:
        """Returns the cross entropy of each pixel, without options."""
        valid = self._has_class(label)
        # By comparison, not by index: the gradient of an index is a scatter, slow on CPUs.
        classes = jnp.arange(self.num_classes).reshape(1, 1, 1, -1)
        true = jnp.where(valid, label, 0)[..., None] == classes
        return jax.nn.logsumexp(output, -1) - jnp.where(true, output, 0.0).sum(-1), valid

    def distance(self, output: Logits, target: Logits, temperature: float) -> Float[Array, " B"]:
        return softmax_distance(output, target, temperature)

    @property
    def metrics(self) -> Metrics:
        return _Confusion(self.num_classes, self._ignored)

    def check(self, labels: np.ndarray) -> None:
        checks.require_shape(self.name, labels, (None, None))
        special = None if self.ignore is None else self._ignored
        checks.require_class_indices(
            self.name, labels, self.num_classes, special, "pixels without a class"
        )

    def constant_output(self, labels: np.ndarray, size: Pixels) -> Float[np.ndarray, "H W C"]:
        """Logarithms of the class frequencies: minimum cross entropy, and most frequent class."""
        frequencies = log_frequencies(labels[self._has_class(labels)], self.num_classes)
        return np.broadcast_to(frequencies, (*size, self.num_classes))

    def parse(self, value: Any) -> Int[np.ndarray, "H W"]:
        """Parses a gray or palette map of classes, or colors if the task has `colors`.

        Without an ignored value, masks of two classes with the values 0 and 255 are accepted.
        """
        if self.colors:
            return parsing.classes_of_colors(value, self.colors, self.ignored_colors, self._ignored)
        stored = parsing.plane(value)
        if self.values:
            return parsing.classes_of_values(stored, self.values, self.ignore, self._ignored)
        if self.ignore is None and self.num_classes == 2 and np.isin(stored, (0, 255)).all():
            return (stored != 0).astype(np.int32)
        return parsing.classes_from(
            stored, self.first, self.num_classes, self.ignore, self._ignored
        )

    def clean(
        self, label: Int[np.ndarray, "H W"], size: Pixels
    ) -> tuple[Int[np.ndarray, "H W"], Changes]:
        """Counts masks without any class and, of two classes, those in which 1 may be `ignore`."""
        del size
        classes = label[np.asarray(self._has_class(label))]
        highest = int(classes.max()) if len(classes) else -1
        is_partial = self.ignore is not None and (label == self._ignored).any()
        if not is_partial or highest > 0 or (highest == 0 and self.num_classes != 2):
            return label, {}
        if highest < 0:
            return label, {("warning", "masks without a pixel that has a class"): 1}
        what = f"masks with {self.ignore}, which is left out, and without class 1, in labels"
        return label, {("warning", what): 1}

    def placeholder(self, size: Pixels) -> Int[np.ndarray, "H W"]:
        return np.full(size, self._ignored, np.int32)

    def warp(self, label: Array, warp: Warp) -> Array:
        return self.in_mirror(warp.plane(label, fill=self._ignored), warp)

    def label_values(self, label: np.ndarray) -> Int[np.ndarray, " n"]:
        return label[np.asarray(self._has_class(label))]

    def decode(self, output: Logits) -> Int[Array, "B H W"]:
        return output.argmax(-1)

    def text(self, value: Any) -> str:
        classes, counts = np.unique(self.label_values(np.asarray(value)), return_counts=True)
        order = np.argsort(-counts, kind="stable")
        names = self.class_names or [f"class {i}" for i in range(self.num_classes)]
        shares = [f"{names[classes[i]]} {100 * counts[i] / counts.sum():.3g} %" for i in order]
        return ", ".join(shares[:3] + ["..."] * (len(shares) > 3)) or "nothing"

    def draw_metrics(self, axis: Any, metrics: TaskMetrics) -> str | None:
        iou = np.asarray(metrics.get("iou", ()), float)
        if iou.shape != (self.num_classes,) or not np.isfinite(iou).any():
            return None
        names = self.class_names or [f"class {i}" for i in range(self.num_classes)]
        drawing.draw_bars(axis, iou, names, "IoU on the test split")
        known = np.flatnonzero(np.isfinite(iou))
        low, high = known[iou[known].argmin()], known[iou[known].argmax()]
        return (
            f"{self.name}: mean IoU {iou[known].mean():.3f}; lowest {names[low]} {iou[low]:.3f}, "
            f"highest {names[high]} {iou[high]:.3f}"
        )

    @property
    def legend(self) -> tuple[tuple[str, drawing.Color], ...]:
        return drawing.class_legend(self.class_names)

    def picture(self, value: Any, image: np.ndarray) -> drawing.RGB:
        classes = np.where(self._has_class(np.asarray(value)), value, -1)
        return drawing.paint_classes(classes, self.num_classes)


class _Confusion(ConfusionMatrix):
    """Metrics from the confusion matrix of all pixels."""

    def compute(self, state: dict[str, np.ndarray]) -> TaskMetrics:
        confusion = np.asarray(state["confusion"], np.int64)
        hits, true, predicted = np.diagonal(confusion), confusion.sum(1), confusion.sum(0)
        union, total = true + predicted - hits, confusion.sum()
        occurs = union > 0
        iou = np.where(occurs, hits / np.maximum(union, 1), np.nan)
        return {
            "miou": float(iou[occurs].mean()) if total else float("nan"),
            "pixel_accuracy": float(hits.sum() / total) if total else float("nan"),
            "iou": iou.tolist(),
        }
