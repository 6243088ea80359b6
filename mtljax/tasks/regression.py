"""Regression: one or several numbers per image."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any, Literal

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree

from mtljax.models.heads import VectorHead
from mtljax.tasks import checks, parsing
from mtljax.tasks.base import SumAndCount
from mtljax.tasks.metric import Metrics, MetricSpec, Present, TaskMetrics
from mtljax.tasks.scaled import ScaledTask
from mtljax.tasks.streaming import fill_absent, masked_sum, precise_add, precise_sum
from mtljax.tasks.warps import Pixels, Warp

Kind = Literal["l2", "l1", "huber"]
"""Kind of loss; see `Regression`."""
Rule = Literal["keep", "negate"]
"""Change of a value in a mirror image."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Regression(ScaledTask):
    """A number per image, or `size` numbers. Output and labels: [B], or [B, size] if size > 1.

    Outputs have the label's unit; the loss, of the error over `scale`, does not depend on it.
    """

    size: int = 1
    """Number of values per image."""
    center: float | tuple[float, ...] | None = None
    """Typical label, in the label's unit, one or one per value; the prediction of an untrained
    network. none: mean of the training labels, or 0 without such."""
    scale: float | tuple[float, ...] | None = None
    """Typical distance from `center`, likewise. none: standard deviation of the training labels, or
    1 without such."""
    kind: Kind = "l2"
    """Loss of the scaled error e: e^2, |e|, or huber: e^2 / 2 up to |e| = 1, then |e| - 1/2."""
    threshold: float | None = None
    """Adds the metric `accuracy`: fraction of outputs on their label's side of this threshold."""
    mirror: Rule | tuple[Rule, ...] | None = None
    """Values in a mirror image, one rule or one per value: `keep`, the same (an age); `negate`, the
    opposite sign (a yaw angle, left and right only). Flips need it."""

    former = {"mirror": "keep"}
    main_metric = "mae"
    metric_specs = {
        "mae": MetricSpec("mean absolute error", higher_is_better=False),
        "rmse": MetricSpec("root mean square error", higher_is_better=False),
        "r2": MetricSpec("R²", higher_is_better=True, zero_below=1e-5),
        "accuracy": MetricSpec("accuracy", higher_is_better=True, percent=True),
    }

    def __post_init__(self) -> None:
        super().__post_init__()
        checks.require_least(self, 1, "size")
        for field in ("center", "scale"):
            value = getattr(self, field)
            counts = np.ndim(value) == 0 or len(value) == self.size
            checks.require_setting(self, field, counts, f"one number, or {self.size}")
        positive = self.scale is None or all(0 < x < np.inf for x in np.ravel(self.scale))
        checks.require_setting(self, "scale", positive, "> 0")
        checks.require_choice(self, "kind", Kind)
        counts = isinstance(self.mirror, str) or len(self.mirror or self._rules) == self.size
        checks.require_setting(self, "mirror", counts, f"one rule, or {self.size}")
        known = {"keep", "negate"} >= set(self._rules)
        checks.require_setting(self, "mirror", known, "keep or negate")
        finite = self.threshold is None or math.isfinite(self.threshold)
        checks.require_setting(self, "threshold", finite, "finite")

    def head(self) -> nn.Module:
        return VectorHead(
            outputs=self.size,
            squeeze=self.size == 1,
            center=_number(self.center, 0.0),
            scale=_number(self.scale, 1.0),
        )

    def loss(self, output: Array, label: Array, present: Present) -> SumAndCount:
        error = (output - fill_absent(label, present)) / jnp.asarray(_number(self.scale, 1.0))
        losses = {
            "l2": lambda: error**2,
            "l1": lambda: jnp.abs(error),
            "huber": lambda: jnp.where(jnp.abs(error) < 1, error**2 / 2, jnp.abs(error) - 0.5),
        }[self.kind]()
        return masked_sum(losses.reshape(losses.shape[0], -1).mean(-1), present)

    def moments(self, labels: np.ndarray) -> Mapping[str, Any]:
        scale = labels.std(0, np.float64)
        return {"center": labels.mean(0, np.float64), "scale": np.where(scale > 0, scale, 1.0)}

    @property
    def metrics(self) -> Metrics:
        return _Errors(self)

    def check(self, labels: np.ndarray) -> None:
        checks.require_finite(self.name, labels)
        checks.require_shape(self.name, labels, () if self.size == 1 else (self.size,))

    def constant_output(self, labels: np.ndarray, size: Pixels) -> Float[np.ndarray, "..."]:
        """Mean label."""
        return labels.mean(0, dtype=np.float64).astype(np.float32)

    def parse(self, value: Any) -> Float[np.ndarray, "..."]:
        values = parsing.in_float32(parsing.numbers(value))
        if values.size != self.size:
            raise ValueError(f"{values.size} numbers, not {self.size}")
        return values[0] if self.size == 1 else values

    def label_values(self, label: Any) -> Float[np.ndarray, "1 size"]:
        return np.reshape(label, (1, -1))

    def placeholder(self, size: Pixels) -> Float[np.ndarray, "..."]:
        values = np.zeros(self.size, np.float32)
        return values[0] if self.size == 1 else values

    @property
    def _rules(self) -> tuple[str, ...]:
        """Rule of each value in a mirror image."""
        rules = self.mirror or "keep"
        return (rules,) * self.size if isinstance(rules, str) else rules

    def check_mirror(self, *, vertical: bool) -> None:
        place = f"task {self.name!r}: "
        if self.mirror is None:
            raise ValueError(
                f"{place}a mirror image may have another value: set mirror='keep' if it has the "
                "same (an age), 'negate' if the sign changes (a yaw angle), or leave out flip; for "
                "boxes and points use Detection and Keypoints"
            )
        if vertical and "negate" in self._rules:
            raise ValueError(
                f"{place}mirror='negate' is for left and right; leave out flip:vertical=true"
            )

    def warp(self, label: Array, warp: Warp) -> Array:
        if not warp.mirrored or "negate" not in self._rules:
            return label
        signs = np.asarray([-1 if rule == "negate" else 1 for rule in self._rules], np.float32)
        return label * signs.astype(label.dtype).reshape(label.shape)

    def mix(self, label: Array, other: Array, weight: Float[Array, ""]) -> Array:
        return weight * label + (1 - weight) * other

    def error(self, output: Array, label: Array) -> Float[Array, " B"]:
        return abs(output - label).reshape(len(output), -1).mean(-1)

    def text(self, value: Any) -> str:
        return " ".join(f"{v:.2f}" for v in np.ravel(value))

    def draw(self, axis: Any, outputs: np.ndarray, labels: np.ndarray) -> str | None:
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
        label = "one test image" if self.size == 1 else "one of its values"
        axis.scatter(true, predicted, s=14, alpha=alpha, lw=0, label=label)
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


def _number(value: Any, default: float) -> Any:
    """Returns one number or a tuple of them, `default` for None."""
    if value is None:
        return default
    return tuple(map(float, value)) if np.ndim(value) else float(value)


class _Errors(Metrics):
    """Sums of errors and labels and their squares over examples and components.

    Labels are taken relative to `center`, so that squares are small.
    """

    def __init__(self, task: Regression):
        self.task = task

    def empty(self) -> PyTree:
        counts = {name: np.zeros((), np.int32) for name in ("count", "same_side")}
        labels = np.zeros((2 * self.task.size, 2), np.float32)
        return {**counts, "error": np.zeros((2, 2), np.float32), "label": labels}

    def update(self, state: PyTree, output: Array, label: Array, present: Present) -> PyTree:
        task, known = self.task, present[:, None]
        shape = (present.shape[0], task.size)
        label = fill_absent(label, present)
        error = jnp.where(known, (output - label).reshape(shape), 0.0)
        same_side = state["same_side"]
        if task.threshold is not None:
            same = (output >= task.threshold) == (label >= task.threshold)
            same_side = same_side + (same.reshape(shape) & known).sum()
        label = jnp.where(known, label.reshape(shape) - jnp.asarray(_number(task.center, 0.0)), 0.0)
        errors = precise_sum(jnp.stack([jnp.abs(error), error**2]))
        labels = precise_sum(jnp.concatenate([label, label**2], 1).T)
        return {
            "count": state["count"] + present.sum(),
            "error": precise_add(state["error"], errors),
            "label": precise_add(state["label"], labels),
            "same_side": same_side,
        }

    def compute(self, state: PyTree) -> TaskMetrics:
        count = int(state["count"]) or float("nan")
        total = lambda part: np.asarray(state[part], np.float64).sum(-1)
        absolute, square = total("error") / (count * self.task.size)
        label, label_square = np.split(total("label"), 2)
        spread = float((label_square - label**2 / count).sum())
        metrics = {
            "mae": float(absolute),
            "rmse": float(np.sqrt(square)),
            "r2": 1 - float(total("error")[1]) / spread if spread > 0 else float("nan"),
        }
        if self.task.threshold is not None:
            metrics["accuracy"] = int(state["same_side"]) / (count * self.task.size)
        return metrics
