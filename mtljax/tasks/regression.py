"""Regression: one number (or a few) per image."""

import dataclasses
import math
from typing import Literal

import jax.numpy as jnp
import numpy as np

from mtljax.models.heads import VectorHead
from mtljax.tasks.base import Metrics, Task, require_finite
from mtljax.tasks.metric_spec import MetricSpec
from mtljax.tasks.raw import numbers
from mtljax.tasks.settings import require_choice, require_least, require_positive
from mtljax.tasks.streaming import fill_absent, precise_add, precise_sum

Kind = Literal["l2", "l1", "huber"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Regression(Task):
    """A number per image, or `size` of them. Output and labels: [B], or [B, size] if size > 1.

    Outputs are in the label's own unit; the loss is taken after both are centred and scaled, so
    that its size does not depend on the unit.
    """

    size: int = 1
    center: float = 0.0
    """A typical label, in the label's unit: what an untrained network predicts."""
    scale: float = 1.0
    """A typical distance from `center`, in the label's unit."""
    kind: Kind = "l2"
    """Loss of the scaled error e: e^2, |e|, or e^2 / 2 up to |e| = 1 and |e| - 1/2 beyond."""
    threshold: float | None = None
    """Where the question is whether a number is below this or not: adds the metric `accuracy`, the
    share of outputs that are on their label's side."""

    main_metric = "mae"
    metric_specs = {
        "mae": MetricSpec("mean absolute error", higher_is_better=False),
        "rmse": MetricSpec("root mean square error", higher_is_better=False),
        "r2": MetricSpec("R²", higher_is_better=True, zero_below=1e-05),
        "accuracy": MetricSpec("accuracy", higher_is_better=True, percent=True),
    }

    def __post_init__(self):
        require_least(self, 1, "size")
        require_positive(self, "scale")
        require_choice(self, "kind", Kind)
        if self.threshold is not None and not math.isfinite(self.threshold):
            raise ValueError(f"task {self.name!r}: threshold must be finite, not {self.threshold}")

    def head(self):
        return VectorHead(
            outputs=self.size, squeeze=self.size == 1, center=self.center, scale=self.scale
        )

    def loss(self, output, label, present):
        error = (output - fill_absent(label, present)) / self.scale
        losses = {
            "l2": lambda: error**2,
            "l1": lambda: jnp.abs(error),
            "huber": lambda: jnp.where(jnp.abs(error) < 1, error**2 / 2, jnp.abs(error) - 0.5),
        }[self.kind]()
        losses = losses.reshape(losses.shape[0], -1).mean(-1)
        return jnp.where(present, losses, 0.0).sum(), present.sum().astype(jnp.float32)

    @property
    def metrics(self):
        if self.threshold is None:
            return _Errors(self.size, self.center)
        return _Sides(self.size, self.center, self.threshold)

    def check(self, labels):
        require_finite(self.name, labels)
        expected = (len(labels),) if self.size == 1 else (len(labels), self.size)
        if labels.shape != expected:
            raise ValueError(
                f"task {self.name!r}: labels of shape {labels.shape}; must be {expected}"
            )

    def constant(self, labels, size):
        """The mean."""
        del size
        return labels.mean(0, dtype=np.float64).astype(np.float32)

    def read(self, value):
        found = numbers(value).astype(np.float32)
        if found.size != self.size:
            raise ValueError(f"{found.size} numbers, not {self.size}")
        return found[0] if self.size == 1 else found

    def blank(self, size):
        del size
        return np.zeros((), np.float32)[()] if self.size == 1 else np.zeros(self.size, np.float32)

    def mix(self, label, other, share):
        return share * label + (1 - share) * other

    def error(self, output, label):
        return abs(output - label).reshape(len(output), -1).mean(-1)

    def text(self, value):
        return " ".join(f"{v:.2f}" for v in np.ravel(value))

    def draw(self, axis, outputs, labels):
        labels, outputs = np.ravel(labels), np.ravel(outputs)
        finite = np.isfinite(outputs)
        if not finite.any():
            return None
        true, predicted = labels[finite], outputs[finite]
        ends = [min(true.min(), predicted.min()), max(true.max(), predicted.max())]
        axis.plot(ends, ends, color="0.6", lw=1, zorder=0, label="perfect")
        if self.threshold is not None:
            for line in (axis.axvline, axis.axhline):
                line(self.threshold, color="0.6", lw=1, ls=":", zorder=0)
        alpha = float(np.clip(200 / len(true), 0.05, 0.5))
        axis.scatter(
            true,
            predicted,
            s=14,
            alpha=alpha,
            lw=0,
            label="one test image" if self.size == 1 else "one of its values",
        )
        axis.set_xlabel("true value")
        axis.set_ylabel("predicted value")
        axis.set_aspect("equal", adjustable="datalim")
        axis.legend()
        error = np.abs(predicted - true)
        lost = "" if finite.all() else f"; {(~finite).sum()} predictions are not finite"
        return (
            f"{self.name}: off by {error.mean():.3g} on average, "
            f"by less than {np.quantile(error, 0.95):.3g} for 95 % of the test labels{lost}"
        )


class _Errors(Metrics):
    """Sums over examples and components, labels taken from `center` so that squares stay small."""

    def __init__(self, size: int, center: float):
        self.size, self.center = size, center

    def empty(self):
        return {
            "count": np.zeros((), np.int32),
            "error": np.zeros((2, 2), np.float32),
            "label": np.zeros((2 * self.size, 2), np.float32),
        }

    def update(self, state, output, label, present):
        shape = (present.shape[0], self.size)
        label = fill_absent(label, present)
        error = jnp.where(present[:, None], (output - label).reshape(shape), 0.0)
        label = jnp.where(present[:, None], label.reshape(shape) - self.center, 0.0)
        errors = precise_sum(jnp.stack([jnp.abs(error), error**2]))
        labels = precise_sum(jnp.concatenate([label, label**2], 1).T)
        return {
            "count": state["count"] + present.sum(),
            "error": precise_add(state["error"], errors),
            "label": precise_add(state["label"], labels),
        }

    def compute(self, state):
        count = int(state["count"])
        if not count:
            return {"mae": float("nan"), "rmse": float("nan"), "r2": float("nan")}
        total = lambda part: np.asarray(state[part], np.float64).sum(-1)
        absolute, square = total("error")
        label, label_square = np.split(total("label"), 2)
        spread = float((label_square - label**2 / count).sum())
        return {
            "mae": float(absolute) / (count * self.size),
            "rmse": float(np.sqrt(square / (count * self.size))),
            "r2": 1 - float(square) / spread if spread > 0 else float("nan"),
        }


class _Sides(_Errors):
    """The same, and how many of all numbers are on their label's side of a threshold."""

    def __init__(self, size: int, center: float, threshold: float):
        super().__init__(size, center)
        self.threshold = threshold

    def empty(self):
        return {**super().empty(), "agree": np.zeros((), np.int32)}

    def update(self, state, output, label, present):
        known = fill_absent(label, present)
        agree = (output >= self.threshold) == (known >= self.threshold)
        agree = agree.reshape(present.shape[0], self.size) & present[:, None]
        return {
            **super().update(state, output, label, present),
            "agree": state["agree"] + agree.sum(),
        }

    def compute(self, state):
        count = int(state["count"]) * self.size
        accuracy = int(state["agree"]) / count if count else float("nan")
        return {**super().compute(state), "accuracy": accuracy}
