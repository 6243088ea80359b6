"""Multi-label classification: any number of classes per image."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Bool, Float, Int

from mtljax.models.heads import VectorHead
from mtljax.tasks import checks, drawing, parsing
from mtljax.tasks.base import Metrics, MetricSpec, Present, SumAndCount, TaskMetrics
from mtljax.tasks.classes import ClassTask
from mtljax.tasks.distances import sigmoid_distance
from mtljax.tasks.streaming import PerExample, fill_absent, masked_sum
from mtljax.tasks.warps import Pixels

Logits = Float[Array, "B C"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class MultiLabel(ClassTask):
    """Any subset of `num_classes` per image. Output: logits [B, C]. Labels: 0 or 1, [B, C].

    Loss: cross entropy, its mean over classes. Metrics: `f1`, the mean over classes of
    2 TP / (2 TP + FP + FN) at probability 1/2, of classes that are true or predicted anywhere; and
    `map`, the mean over classes that are true anywhere of average precision: the sum over
    examples, ranked by score, of precision times gain in recall, equal scores counted at once.
    """

    negative: int = 0
    """Number in tables for a class that does not apply: 0, or -1 as in CelebA."""

    main_metric = "map"
    metric_specs = {
        "map": MetricSpec("mean average precision", higher_is_better=True),
        "f1": MetricSpec("mean F1", higher_is_better=True),
        "average_precision": MetricSpec("average precision of each class"),
    }

    def __post_init__(self) -> None:
        super().__post_init__()
        checks.require_setting(self, "negative", self.negative in (0, -1), "0 or -1")

    def head(self) -> nn.Module:
        return VectorHead(outputs=self.num_classes)

    def loss(self, output: Logits, label: Array, present: Present) -> SumAndCount:
        return masked_sum(self.error(output, fill_absent(label, present)), present)

    def distance(self, output: Logits, target: Logits, temperature: float) -> Float[Array, " B"]:
        return sigmoid_distance(output, target, temperature)

    @property
    def metrics(self) -> Metrics:
        return _Rankings()

    def check(self, labels: np.ndarray) -> None:
        checks.require_shape(self.name, labels, (self.num_classes,))
        checks.require(self.name, (labels == 0) | (labels == 1), labels, "must be 0 or 1")

    def constant_output(self, labels: np.ndarray, size: Pixels) -> Float[np.ndarray, " C"]:
        """Log odds of each class, with one added to the counts of positives and negatives."""
        positive = (labels != 0).sum(0)
        return np.log((positive + 1) / (len(labels) - positive + 1)).astype(np.float32)

    def parse(self, value: Any) -> Int[np.ndarray, " C"]:
        """Parses `negative` or 1 of each class, {class name: number}, or "cat;dog"."""
        if isinstance(value, str) and self.class_names and value.strip("01-. "):
            names = filter(str.strip, value.split(";"))
            classes = {parsing.class_index(name, self.class_names) for name in names}
            value = [i in classes for i in range(self.num_classes)]
        if isinstance(value, Mapping):
            if not self.class_names:
                raise ValueError("values by class name, but the task has no class_names: set them")
            missing = [name for name in self.class_names if name not in value]
            if missing:
                raise ValueError(f"no value for {', '.join(missing)}")
            value = [value[name] for name in self.class_names]
        if isinstance(value, (list, tuple)):
            value = [parsing.number(x) for x in value]
        values = parsing.numbers(value)
        if values.size != self.num_classes:
            raise ValueError(f"{values.size} numbers for {self.num_classes} classes")
        valid = (values == self.negative) | (values == 1)
        if not valid.all():
            wrong, other = values[~valid][0], -1 - self.negative
            hint = f"; set negative={other} if {other} means no" if wrong == other else ""
            raise ValueError(
                f"{wrong:g}; must be {self.negative} or 1, or the entire label empty if it is not "
                f"known{hint}"
            )
        return (values > 0).astype(np.int32)

    def placeholder(self, size: Pixels) -> Int[np.ndarray, " C"]:
        return np.zeros(self.num_classes, np.int32)

    def mix(self, label: Array, other: Array, weight: Float[Array, ""]) -> Float[Array, " C"]:
        return weight * label.astype(weight.dtype) + (1 - weight) * other.astype(weight.dtype)

    def label_values(self, label: np.ndarray) -> Int[np.ndarray, " n"]:
        return np.flatnonzero(label)

    def decode(self, output: Logits) -> Int[Array, "B C"]:
        """Returns 1 where the probability is above 1/2, else 0."""
        return (output > 0).astype(jnp.int32)

    def probabilities(self, output: Logits, temperature: float = 1.0) -> Logits:
        return jax.nn.sigmoid(output / temperature)

    def error(self, output: Logits, label: Array) -> Float[Array, " B"]:
        return optax.sigmoid_binary_cross_entropy(output, label.astype(output.dtype)).mean(-1)

    def text(self, value: Any) -> str:
        names = self.class_names or range(self.num_classes)
        return ", ".join(str(name) for name, on in zip(names, value, strict=True) if on) or "none"

    def draw(self, axis: Any, outputs: np.ndarray, labels: np.ndarray) -> str | None:
        precision = average_precision(np.asarray(jax.device_get(outputs)), np.asarray(labels) != 0)
        return self._draw_precision(axis, precision)

    def draw_metrics(self, axis: Any, metrics: TaskMetrics) -> str | None:
        precision = np.asarray(metrics.get("average_precision", ()), float)
        return self._draw_precision(axis, precision) if len(precision) else None

    def _draw_precision(self, axis: Any, precision: Float[np.ndarray, " C"]) -> str | None:
        names = self.class_names or [str(i) for i in range(self.num_classes)]
        drawing.draw_bars(axis, precision, names, "average precision")
        finite = precision[np.isfinite(precision)]
        return f"{self.name}: mean average precision {finite.mean():.2f}" if finite.size else None


class _Rankings(PerExample):
    """Scores and labels of all examples: a ranking needs all of them."""

    names = ("map", "f1", "average_precision")

    def describe(self, output: Logits, label: Array) -> dict[str, Array]:
        return {"score": output, "truth": label != 0}

    def compute_from_rows(self, rows: dict[str, np.ndarray]) -> TaskMetrics:
        score, truth = rows["score"], rows["truth"]
        predicted = score > 0
        hits, total = (truth & predicted).sum(0), truth.sum(0) + predicted.sum(0)
        f1 = 2 * hits[total > 0] / total[total > 0]
        precision = average_precision(score, truth)
        finite = precision[np.isfinite(precision)]
        return {
            "map": float(finite.mean()) if finite.size else float("nan"),
            "f1": float(f1.mean()) if f1.size else float("nan"),
            "average_precision": precision.tolist(),
        }


def average_precision(
    score: Float[np.ndarray, "N C"], truth: Bool[np.ndarray, "N C"]
) -> Float[np.ndarray, " C"]:
    """Returns the average precision of each class; NaN without positive examples."""
    result = np.full(score.shape[1], np.nan)
    for i, (s, t) in enumerate(zip(score.T, truth.T, strict=True)):
        order = np.argsort(-s, kind="stable")
        s, hits = s[order], np.cumsum(t[order])
        last = np.flatnonzero(np.append(s[1:] != s[:-1], True))  # of each group of equal scores
        if hits[-1]:
            gain = np.diff(hits[last], prepend=0) / hits[-1]
            result[i] = (hits[last] / (last + 1) * gain).sum()
    return result
