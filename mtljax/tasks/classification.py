"""Classification: one class per image."""

import dataclasses
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int

from mtljax.models.heads import VectorHead
from mtljax.tasks import checks, parsing
from mtljax.tasks.base import Metrics, MetricSpec, Present, SumAndCount, Task, TaskMetrics
from mtljax.tasks.distances import softmax_distance
from mtljax.tasks.streaming import ConfusionMatrix, fill_absent, log_frequencies, masked_sum
from mtljax.tasks.warps import Pixels

Logits = Float[Array, "B C"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Classification(Task):
    """One of `num_classes` per image. Output: logits [B, C]. Labels: integers [B].

    `loss` also accepts distributions over the classes, [B, C], as labels of mixed images.
    """

    num_classes: int
    label_smoothing: float = 0.0
    """Fraction of the target that is spread uniformly over the classes, in [0, 1). The validation
    and test loss includes it: compare losses only between equal settings."""
    class_names: tuple[str, ...] = ()
    """Names of the classes in reports; their indices if empty."""

    main_metric = "accuracy"
    metric_specs = {
        "accuracy": MetricSpec("accuracy", higher_is_better=True, percent=True),
        "macro_f1": MetricSpec("macro F1", higher_is_better=True),
        "confusion": MetricSpec("confusion matrix"),
    }

    def __post_init__(self) -> None:
        checks.require_classes(self, 2)
        checks.require_setting(self, "label_smoothing", 0 <= self.label_smoothing < 1, "in [0, 1)")

    def head(self) -> nn.Module:
        return VectorHead(outputs=self.num_classes)

    def loss(self, output: Logits, label: Array, present: Present) -> SumAndCount:
        target = fill_absent(label, present)
        if target.ndim == 1:
            target = jax.nn.one_hot(target, self.num_classes)
        if self.label_smoothing:
            target = optax.smooth_labels(target, self.label_smoothing)
        return masked_sum(optax.softmax_cross_entropy(output, target), present)

    def distance(self, output: Logits, target: Logits, temperature: float) -> Float[Array, " B"]:
        return softmax_distance(output, target, temperature)

    @property
    def metrics(self) -> Metrics:
        return _Confusion(self.num_classes)

    def check(self, labels: np.ndarray) -> None:
        checks.require_finite(self.name, labels)
        checks.require_class_indices(self.name, labels, self.num_classes)

    def constant_output(self, labels: np.ndarray, size: Pixels) -> Float[np.ndarray, " C"]:
        """Logarithms of the class frequencies: minimum loss, and the most frequent class."""
        return log_frequencies(labels, self.num_classes)

    def parse(self, value: Any) -> np.int32:
        return np.int32(parsing.class_index(value, self.class_names))

    def placeholder(self, size: Pixels) -> np.int32:
        return np.int32(0)

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
        fractions = confusion / np.maximum(confusion.sum(1, keepdims=True), 1)
        image = axis.imshow(fractions, cmap="Blues", vmin=0, vmax=1)
        axis.grid(False)
        if self.num_classes <= 20:
            size = 9.5 if self.num_classes <= 12 else 6.5
            center = {"ha": "center", "va": "center", "fontsize": size}
            for row, column in np.argwhere(confusion):
                color = "white" if fractions[row, column] > 0.5 else "black"
                axis.text(column, row, confusion[row, column], color=color, **center)
            ticks = range(self.num_classes)
            names = [_short(self.text(i)) for i in ticks]
            axis.set_xticks(ticks, names, rotation=90 if self.class_names else 0)
            axis.set_yticks(ticks, names)
        else:
            axis.figure.colorbar(image, ax=axis, label="share of the true class", shrink=0.8)
        axis.set_xlabel("predicted class")
        axis.set_ylabel("true class")
        wrong = confusion - np.diag(np.diagonal(confusion))
        title = f"{self.name}: {wrong.sum()} of {confusion.sum()} test images in a wrong class"
        if wrong.max() > 1:
            true, predicted = np.unravel_index(wrong.argmax(), wrong.shape)
            title += (
                f"; most often {self.text(true)} taken for {self.text(predicted)} "
                f"({wrong.max()} times)"
            )
        return title


def _short(name: str) -> str:
    return name if len(name) <= 16 else name[:15] + "…"


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
