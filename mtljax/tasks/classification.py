"""Classification: one class per image."""

import dataclasses
from collections.abc import Iterable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from mtljax.models.heads import VectorHead
from mtljax.tasks import checks, drawing, parsing
from mtljax.tasks.base import SumAndCount
from mtljax.tasks.class_losses import SoftmaxTask, softmax_losses
from mtljax.tasks.distances import softmax_distance
from mtljax.tasks.metric import Metrics, MetricSpec, Present, TaskMetrics
from mtljax.tasks.streaming import ConfusionMatrix, fill_absent, log_frequencies, masked_sum
from mtljax.tasks.warps import Pixels, Warp

Logits = Float[Array, "B C"]
"""Logits of the classes."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Classification(SoftmaxTask):
    """One of `num_classes` per image. Output: logits [B, C]. Labels: integers [B].

    Loss: cross entropy, its mean over images, with the options of `mtljax.tasks.class_losses`.
    `loss` also accepts distributions over the classes, [B, C], as labels of mixed images.
    """

    fewest_classes = 2
    main_metric = "accuracy"
    metric_specs = {
        "accuracy": MetricSpec("accuracy", higher_is_better=True, percent=True),
        "macro_f1": MetricSpec("macro F1", higher_is_better=True),
        "confusion": MetricSpec("confusion matrix"),
    }

    def head(self) -> nn.Module:
        return VectorHead(outputs=self.num_classes)

    def loss(self, output: Logits, label: Array, present: Present) -> SumAndCount:
        target = fill_absent(label, present)
        if target.ndim == 1:
            target = jax.nn.one_hot(target, self.num_classes)
        losses, weights = softmax_losses(output, target, self.loss_settings)
        return masked_sum(losses, present, weights)

    def distance(self, output: Logits, target: Logits, temperature: float) -> Float[Array, " B"]:
        return softmax_distance(output, target, temperature)

    @property
    def metrics(self) -> Metrics:
        return _Confusion(self.num_classes)

    def check(self, labels: np.ndarray) -> None:
        if labels.ndim != 1:
            hint = "; labels.argmax(1) converts one-hot rows" if labels.ndim == 2 else ""
            raise ValueError(
                f"task {self.name!r}: labels of shape {labels.shape}; must be [N]{hint}"
            )
        checks.require_finite(self.name, labels)
        checks.require_class_indices(self.name, labels, self.num_classes)

    def constant_output(self, labels: np.ndarray, size: Pixels) -> Float[np.ndarray, " C"]:
        """Logarithms of the class frequencies: minimum cross entropy, and most frequent class."""
        return log_frequencies(labels, self.num_classes)

    def classes_in(self, value: Any) -> Iterable[str]:
        text = parsing.class_text(value)
        return () if text is None else (text,)

    def parse(self, value: Any) -> np.int32:
        index = parsing.class_index(value, self.class_names)
        if not 0 <= index < 2**31:
            hint = "; if it marks a missing label, set missing=-1 of the source"
            raise ValueError(f"class {index}; must be >= 0{hint if index == -1 else ''}")
        return np.int32(index)

    def placeholder(self, size: Pixels) -> np.int32:
        return np.int32(0)

    def warp(self, label: Array, warp: Warp) -> Array:
        return (
            label[self._mirrored] if label.ndim and warp.mirrored else self.in_mirror(label, warp)
        )

    def mix(self, label: Array, other: Array, weight: Float[Array, ""]) -> Float[Array, " C"]:
        soft = lambda x: x if jnp.ndim(x) else jax.nn.one_hot(x, self.num_classes)
        return weight * soft(label) + (1 - weight) * soft(other)

    def decode(self, output: Logits) -> Int[Array, " B"]:
        return output.argmax(-1)

    def probabilities(self, output: Logits, temperature: float = 1.0) -> Logits:
        return jax.nn.softmax(output / temperature, -1)

    def error(self, output: Logits, label: Int[Array, " B"]) -> Float[Array, " B"]:
        # In NumPy for NumPy arrays: compilation would take longer than all other steps.
        xp = output.__array_namespace__()
        highest = output.max(-1)
        total = xp.log(xp.exp(output - highest[:, None]).sum(-1)) + highest
        return total - xp.take_along_axis(output, label[:, None], axis=-1)[:, 0]

    def text(self, value: Any) -> str:
        return self.class_names[int(value)] if self.class_names else str(int(value))

    def draw(self, axis: Any, outputs: np.ndarray, labels: np.ndarray) -> str:
        confusion = np.zeros((self.num_classes, self.num_classes), int)
        np.add.at(confusion, (labels, outputs.argmax(-1)), 1)
        return self._draw_confusion(axis, confusion)

    def draw_metrics(self, axis: Any, metrics: TaskMetrics) -> str | None:
        confusion = np.asarray(metrics.get("confusion", ()), int)
        if confusion.shape != (self.num_classes, self.num_classes) or not confusion.any():
            return None
        return self._draw_confusion(axis, confusion)

    def _draw_confusion(self, axis: Any, confusion: Int[np.ndarray, "C C"]) -> str:
        drawing.draw_confusion(axis, confusion, [self.text(i) for i in range(self.num_classes)])
        wrong = confusion - np.diag(np.diagonal(confusion))
        title = f"{self.name}: {wrong.sum()} of {confusion.sum()} test images in a wrong class"
        if wrong.max() > 1:
            true, predicted = np.unravel_index(wrong.argmax(), wrong.shape)
            title += (
                f"; most often {self.text(true)} taken for {self.text(predicted)} "
                f"({wrong.max()} times)"
            )
        return title


class _Confusion(ConfusionMatrix):
    """Metrics from the confusion matrix of all examples."""

    def compute(self, state: dict[str, np.ndarray]) -> TaskMetrics:
        confusion = np.asarray(state["confusion"])
        hits, true, predicted = np.diagonal(confusion), confusion.sum(1), confusion.sum(0)
        occurs = true + predicted > 0
        f1 = 2 * hits[occurs] / (true + predicted)[occurs]
        return {
            "accuracy": float(hits.sum() / true.sum()) if true.sum() else float("nan"),
            "macro_f1": float(f1.mean()) if occurs.any() else float("nan"),
            "confusion": confusion.tolist(),
        }
