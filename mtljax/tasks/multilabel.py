"""Multi-label classification: any number of classes per image."""

import dataclasses
from collections.abc import Iterable, Sequence
from typing import Any, Literal, Self

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int

from mtljax.models.heads import VectorHead
from mtljax.tasks import checks, class_lists, drawing
from mtljax.tasks.base import ChangeKind, Changes, SumAndCount
from mtljax.tasks.class_losses import (
    ClassLoss,
    Weights,
    balanced_positive_weights,
    check_weights,
    given_weights,
    sigmoid_losses,
)
from mtljax.tasks.classes import ClassTask
from mtljax.tasks.distances import sigmoid_distance
from mtljax.tasks.metric import Metrics, MetricSpec, Present, TaskMetrics
from mtljax.tasks.streaming import PerExample, fill_absent, masked_mean, masked_sum
from mtljax.tasks.warps import Pixels, Warp

Logits = Float[Array, "B C"]
"""Logits of the classes."""
Uncertain = Literal["error", "missing", "negative", "positive"]
"""Meaning of uncertain labels; see `MultiLabel`."""
UNCERTAIN = -2
"""State of an uncertain class in a parsed label."""
STATES: dict[str, tuple[int, ChangeKind, str]] = {
    "missing": (-1, "missing", "labels: uncertain classes"),
    "negative": (0, "converted", "uncertain classes to no"),
    "positive": (1, "converted", "uncertain classes to yes"),
}
"""Value of `uncertain` -> state of the class, and the note on it."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class MultiLabel(ClassTask):
    """Any subset of `num_classes` per image. Output: logits [B, C]. Labels: [B, C], 1 for a class
    that applies, 0 for one that does not, -1 where that is not known.

    Loss: cross entropy, its mean over all known classes of all images, with the options of
    `mtljax.tasks.class_losses`. Metrics: `f1`, the mean over classes of 2 TP / (2 TP + FP + FN) at
    probability 1/2, of classes that are true or predicted anywhere; and `map`, the mean over
    classes that are true anywhere of average precision: the sum over examples, ranked by score, of
    precision times gain in recall, equal scores counted at once. For each class, images where it is
    not known are left out.
    """

    negative: int = 0
    """Number in tables for a class that does not apply: 0, or -1 as in CelebA."""
    uncertain: Uncertain = "error"
    """Meaning of -1 in tables (of 0 if `negative` is -1), as for uncertain findings in CheXpert: an
    error, a class that is not known (`missing`), or `negative` or `positive`."""
    no_class: tuple[str, ...] = ()
    """Words in tables for a label to which no class applies, such as "No Finding"."""
    positive_weights: Weights = ()
    """Weight of the images to which a class applies, for each class, such as 3 20; `balanced`:
    negatives / positives among the training labels. Empty: 1. The validation and test loss
    includes it."""
    focal: float = 0.0
    """Exponent g of the focal loss, such as 2: a label of predicted probability p counts with the
    factor (1 - p)^g. 0 is cross entropy. The validation and test loss includes it."""

    accepts_empty_columns = True
    cleans_by_size = False
    main_metric = "map"
    metric_specs = {
        "map": MetricSpec("mean average precision", higher_is_better=True),
        "f1": MetricSpec("mean F1", higher_is_better=True),
        "average_precision": MetricSpec("average precision of each class"),
    }

    def __post_init__(self) -> None:
        super().__post_init__()
        checks.require_setting(self, "negative", self.negative in (0, -1), "0 or -1")
        checks.require_choice(self, "uncertain", Uncertain)
        checks.require_setting(self, "focal", 0 <= self.focal < np.inf, ">= 0")
        check_weights(self, "positive_weights")

    @property
    def derived(self) -> tuple[str, ...]:
        balanced = ("positive_weights",) if self.positive_weights == "balanced" else ()
        return (*super().derived, *balanced)

    def classes_in(self, value: Any) -> Iterable[str]:
        return () if self._is_no_class(value) else class_lists.names_in(value)

    def _is_no_class(self, value: Any) -> bool:
        """True for a word in `no_class`, also in a list of one."""
        only = value[0] if isinstance(value, (list, tuple)) and len(value) == 1 else value
        return isinstance(only, str) and only.strip() in self.no_class

    def resolve(self, labels: Int[np.ndarray, "N C"]) -> Self:
        fields: dict[str, Any] = {"num_classes": self.num_classes or labels.shape[1]}
        if self.positive_weights == "balanced":
            counts = ((labels == which).sum(0) for which in (1, 0))
            fields["positive_weights"] = balanced_positive_weights(*counts)
        return dataclasses.replace(self, **fields)

    def head(self) -> nn.Module:
        return VectorHead(outputs=self.num_classes)

    def loss(self, output: Logits, label: Array, present: Present) -> SumAndCount:
        label = fill_absent(label, present)
        return masked_sum(self._losses(output, label), (label >= 0) & present[:, None])

    def _losses(self, output: Logits, label: Array) -> Logits:
        """Returns the loss of each class, finite also where it is not known."""
        target = jnp.maximum(label, 0).astype(output.dtype)
        weights = given_weights(self, "positive_weights")
        return sigmoid_losses(output, target, ClassLoss(weights, self.focal))

    def distance(self, output: Logits, target: Logits, temperature: float) -> Float[Array, " B"]:
        return sigmoid_distance(output, target, temperature)

    @property
    def metrics(self) -> Metrics:
        return _Rankings()

    def check(self, labels: np.ndarray) -> None:
        checks.require_shape(self.name, labels, (self.num_classes or None,))
        valid = (labels == 0) | (labels == 1) | (labels == -1)
        rule = "must be 0 or 1, or -1 for a class that is not known"
        checks.require(self.name, valid, labels, rule)
        if len(labels) > 1 and (labels == -1).any() and not (labels == 0).any():
            raise ValueError(
                f"task {self.name!r}: the labels have -1 and 1, but no 0; -1 is a class that is "
                "not known: write 0 for no"
            )

    def constant_output(self, labels: np.ndarray, size: Pixels) -> Float[np.ndarray, " C"]:
        """Log odds of each class, with one added to the counts of positives and negatives."""
        positive, negative = ((labels == which).sum(0) for which in (1, 0))
        return np.log((positive + 1) / (negative + 1)).astype(np.float32)

    def check_columns(self, columns: Sequence[str]) -> None:
        if set(columns) == set(self.class_names) and tuple(columns) != self.class_names:
            raise ValueError(
                f"the columns {', '.join(columns)} are in another order than class_names"
            )

    def parse(self, value: Any) -> Int[np.ndarray, " C"]:
        """Parses `negative` or 1 of each class, {class name: number}, "cat;dog" or class names.

        In numbers for each class, a cell that is empty, None or NaN is a class that is not known.
        An uncertain class is `UNCERTAIN`, which `clean` replaces.
        """
        if self._is_no_class(value):
            return np.zeros(self.num_classes, np.int32)
        try:
            cells = class_lists.cells_of_classes(value, self.class_names, self.num_classes)
        except ValueError as error:
            is_word = str(error).startswith("unknown class")
            hint = "; a word for no class at all belongs in no_class" if is_word else ""
            raise ValueError(f"{error}{hint}") from None
        return np.asarray([self._state(cell) for cell in cells], np.int32)

    def _state(self, cell: Any) -> int:
        """Returns 1, 0, -1 for a class that is not known, or `UNCERTAIN`."""
        number = class_lists.flag(cell)
        if number is None or number == 1:
            return -1 if number is None else 1
        other = -1 - self.negative
        if number == self.negative:
            return 0
        if number == other and self.uncertain != "error":
            return UNCERTAIN
        hint = f"; set negative={other} if {other} means no, or uncertain=missing (or negative, "
        hint += "positive) if it means uncertain"
        raise ValueError(
            f"{number:g}; must be {self.negative} or 1, or empty if it is not known"
            f"{hint if number == other else ''}"
        )

    def clean(self, label: Any, size: Pixels) -> tuple[Any, Changes]:
        """Replaces uncertain classes by what the task takes them for."""
        uncertain = label == UNCERTAIN
        if self.uncertain == "error" or not uncertain.any():
            return label, {}
        state, kind, what = STATES[self.uncertain]
        return np.where(uncertain, state, label), {(kind, what): int(uncertain.sum())}

    def placeholder(self, size: Pixels) -> Int[np.ndarray, " C"]:
        return np.zeros(self.num_classes, np.int32)

    def warp(self, label: Array, warp: Warp) -> Array:
        return label[self._mirrored] if warp.mirrored else label

    def mix(self, label: Array, other: Array, weight: Float[Array, ""]) -> Float[Array, " C"]:
        known = (label >= 0) & (other >= 0)
        mixed = weight * label.astype(weight.dtype) + (1 - weight) * other.astype(weight.dtype)
        return jnp.where(known, mixed, -1.0)

    def label_values(self, label: np.ndarray) -> Int[np.ndarray, " n"]:
        return np.flatnonzero(label == 1)

    def num_unknown(self, label: np.ndarray) -> int:
        return int((label < 0).sum())

    def decode(self, output: Logits) -> Int[Array, "B C"]:
        """Returns 1 where the probability is above 1/2, else 0."""
        return (output > 0).astype(jnp.int32)

    def probabilities(self, output: Logits, temperature: float = 1.0) -> Logits:
        return jax.nn.sigmoid(output / temperature)

    def error(self, output: Logits, label: Array) -> Float[Array, " B"]:
        target = jnp.maximum(label, 0).astype(output.dtype)
        return masked_mean(optax.sigmoid_binary_cross_entropy(output, target), label >= 0)

    def text(self, value: Any) -> str:
        names = self.class_names or range(len(value))
        pairs = list(zip(names, value, strict=True))
        unknown = [f"{name}?" for name, state in pairs if state < 0]
        return ", ".join([str(name) for name, state in pairs if state > 0] + unknown) or "none"

    def draw(self, axis: Any, outputs: np.ndarray, labels: np.ndarray) -> str | None:
        return self._draw_precision(axis, average_precision(np.asarray(outputs), labels))

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
        return {"score": output, "label": label.astype(jnp.int8)}

    def compute_from_rows(self, rows: dict[str, np.ndarray]) -> TaskMetrics:
        score, label = rows["score"], rows["label"]
        predicted, truth = (score > 0) & (label >= 0), label == 1
        hits, total = (truth & predicted).sum(0), truth.sum(0) + predicted.sum(0)
        f1 = 2 * hits[total > 0] / total[total > 0]
        precision = average_precision(score, label)
        finite = precision[np.isfinite(precision)]
        return {
            "map": float(finite.mean()) if finite.size else float("nan"),
            "f1": float(f1.mean()) if f1.size else float("nan"),
            "average_precision": precision.tolist(),
        }


def average_precision(
    score: Float[np.ndarray, "N C"], label: Int[np.ndarray, "N C"]
) -> Float[np.ndarray, " C"]:
    """Returns the average precision of each class; NaN without positive examples."""
    result = np.full(score.shape[1], np.nan)
    for i, (s, t) in enumerate(zip(score.T, label.T, strict=True)):
        s, t = s[t >= 0], t[t >= 0]  # only where the class is known
        order = np.argsort(-s, kind="stable")
        s, hits = s[order], np.cumsum(t[order] == 1)
        last = np.flatnonzero(np.append(s[1:] != s[:-1], True))  # of each group of equal scores
        if len(hits) and hits[-1]:
            gain = np.diff(hits[last], prepend=0) / hits[-1]
            result[i] = (hits[last] / (last + 1) * gain).sum()
    return result
