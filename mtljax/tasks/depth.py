"""Depth: one distance per pixel."""

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, PyTree

from mtljax.tasks import checks, drawing, parsing
from mtljax.tasks.base import Changes
from mtljax.tasks.dense import PixelLosses, PixelTask
from mtljax.tasks.metric import Metrics, MetricSpec, Present, TaskMetrics
from mtljax.tasks.scaled import ScaledTask
from mtljax.tasks.streaming import of_rank, precise_add, precise_sum
from mtljax.tasks.warps import Pixels, Warp

Kind = Literal["l1", "berhu", "silog"]
"""Kind of loss; see `Depth`."""
Depths = Float[Array, "B H W"]
"""Depth of each pixel."""
Mask = Bool[Array, "B H W"]
"""True for pixels with a label."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Depth(ScaledTask, PixelTask):
    """A distance per pixel. Output and labels: [B, H, W], in the label's unit.

    Labels count where finite and > 0; a map in a file without such a pixel is a missing label. Over
    such pixels, with prediction p >= `floor` and truth t:

        abs_err   mean |p - t|              abs_rel  mean |p - t| / t
        rmse      sqrt(mean (p - t)^2)      log_rmse sqrt(mean (ln p - ln t)^2)
        delta_k   fraction of pixels with max(p / t, t / p) < 1.25^k, k = 1, 2, 3

    Papers that average these per image first (KITTI) report different numbers.

    References:
      Eigen et al., 2014, arXiv:1406.2283, for the metrics and `silog`; Laina et al., 2016,
      arXiv:1606.00373, for `berhu`
    """

    kind: Kind = "l1"
    """Loss of a pixel, with e = (p - t) / `scale` and d = ln p - ln t:
    `l1`: |e|;
    `berhu`: |e| up to c and (e^2 + c^2) / 2c above, c a fifth of the image's largest |e|;
    `silog`: d^2 - `balance` * d * (the image's mean d), whose mean over an image is Eigen's mean
    d^2 - `balance` * (mean d)^2. Below `floor`, ln p is continued linearly."""
    balance: float = 0.5
    """Scale invariance of `silog`: 0 is the plain log error, 1 ignores the scale."""
    center: float | None = None
    """Typical depth; the prediction of an untrained network. none: mean of the training labels, or
    1 without such."""
    scale: float | None = None
    """Typical distance from `center`. none: standard deviation of the training labels, or 1 without
    such."""
    floor: float = 0.01
    """Lower limit of predictions in metrics, for which logarithms are finite."""
    unit: float = 1.0
    """Depth of the value 1 in files, in the unit of labels: 0.001 for a PNG in millimeters and
    labels in meters, 0.00390625 (1 / 256) for KITTI."""
    ignore: tuple[float, ...] = ()
    """Values in files for "not measured", such as 65535; 0, negative and NaN always are."""
    max_value: float | None = None
    """Largest measured depth, in the unit of labels: larger ones are not measured."""

    main_metric = "rmse"
    metric_specs = {
        "rmse": MetricSpec("root mean square error", higher_is_better=False),
        "abs_err": MetricSpec("mean absolute error", higher_is_better=False),
        "abs_rel": MetricSpec("mean relative error", higher_is_better=False),
        "log_rmse": MetricSpec("root mean square log error", higher_is_better=False),
        **{f"delta_{k}": MetricSpec(f"delta {k}", higher_is_better=True) for k in (1, 2, 3)},
    }

    def __post_init__(self) -> None:
        super().__post_init__()
        checks.require_choice(self, "kind", Kind)
        checks.require_positive(self, "floor", "unit")
        for field in ("center", "scale", "max_value"):
            if getattr(self, field) is not None:
                checks.require_positive(self, field)

    def moments(self, labels: Float[np.ndarray, "N H W"]) -> Mapping[str, float]:
        known = labels[has_depth(labels)]
        if not known.size:
            return {}
        center, scale = known.mean(dtype=np.float64), known.std(dtype=np.float64)
        return {"center": center, "scale": scale or center}

    @property
    def _center(self) -> float:
        return 1.0 if self.center is None else self.center

    @property
    def _scale(self) -> float:
        return 1.0 if self.scale is None else self.scale

    def head(self) -> nn.Module:
        return self.dense_head(outputs=1, squeeze=True, center=self._center, scale=self._scale)

    def pixel_losses(self, output: Depths, label: Depths) -> PixelLosses:
        valid = has_depth(label)
        label = jnp.where(valid, label, self._center)
        if self.kind == "silog":
            return self._silog(output, label, valid), valid
        error = jnp.abs(output - label) / self._scale
        return (_berhu(error, valid) if self.kind == "berhu" else error), valid

    def _silog(self, output: Depths, label: Depths, valid: Mask) -> Depths:
        high = jnp.maximum(output, self.floor)
        below = jnp.minimum(output - self.floor, 0.0) / self.floor
        difference = jnp.where(valid, jnp.log(high) + below - jnp.log(label), 0.0)
        count = jnp.maximum(valid.sum((1, 2), keepdims=True), 1)
        mean = difference.sum((1, 2), keepdims=True) / count.astype(difference.dtype)
        return difference**2 - self.balance * difference * mean

    @property
    def metrics(self) -> Metrics:
        return _Errors(self.floor)

    def check(self, labels: np.ndarray) -> None:
        checks.require_shape(self.name, labels, (None, None))
        valid = np.asarray([(np.isfinite(x) & (x > 0)).any() for x in labels], bool)
        checks.require_pixel(self.name, valid, "a finite depth > 0")

    def constant_output(self, labels: np.ndarray, size: Pixels) -> Float[np.ndarray, "H W"]:
        """Mean depth."""
        return np.full(size, labels.mean(dtype=np.float64, where=has_depth(labels)), np.float32)

    def parse(self, value: Any) -> Float[np.ndarray, "H W"]:
        """Parses a map of distances in `unit`; pixels that are not measured become 0."""
        stored = parsing.plane(value)
        depth = (stored * np.float64(self.unit)).astype(np.float32)
        measured = has_depth(depth) & ~np.isin(stored, self.ignore)
        if self.max_value is not None:
            measured &= depth <= np.float32(self.max_value)
        return np.where(measured, depth, np.float32(0))

    def clean(self, label: Any, size: Pixels) -> tuple[Any, Changes]:
        if has_depth(label).any():
            return label, {}
        return None, {("missing", "labels: depth maps without a measured pixel"): 1}

    def placeholder(self, size: Pixels) -> Float[np.ndarray, "H W"]:
        return np.zeros(size, np.float32)

    def warp(self, label: Array, warp: Warp) -> Array:
        """Divides by the zoom, because magnified objects are nearer."""
        return warp.plane(label, fill=0) / warp.zoom

    def label_values(self, label: np.ndarray) -> Float[np.ndarray, " n"]:
        return label[has_depth(label)]

    def decode(self, output: Depths) -> Depths:
        return jnp.maximum(output, self.floor)

    def restore(self, prediction: Depths, warp: Warp) -> Depths:
        return warp.smooth(prediction[..., None])[..., 0]

    def picture(self, value: Any, image: np.ndarray) -> drawing.RGB:
        value = np.asarray(value, np.float64)
        value = np.where(has_depth(value), value, np.nan)
        return drawing.paint_values(value, *self._color_range, "magma_r")

    @property
    def legend(self) -> tuple[tuple[str, drawing.Color], ...]:
        values = np.linspace(*self._color_range, 5)
        colors = drawing.paint_values(values[None], *self._color_range, "magma_r")[0]
        return tuple((f"{value:.3g}", color) for value, color in zip(values, colors, strict=True))

    @property
    def _color_range(self) -> tuple[float, float]:
        return max(0.0, self._center - 2 * self._scale), self._center + 2 * self._scale


def has_depth(label: Any) -> Bool[Array, "*size"]:
    """Returns the mask of pixels with a depth."""
    return (label > 0) & (label < np.inf)


def _berhu(error: Depths, valid: Mask) -> Depths:
    largest = jnp.where(valid, error, 0.0).max((1, 2), keepdims=True)
    limit = jax.lax.stop_gradient(jnp.maximum(largest / 5, 1e-6))
    return jnp.where(error <= limit, error, (error**2 + limit**2) / (2 * limit))


class _Errors(Metrics):
    """Sums of |e|, |e| / t, e^2 and (ln p / t)^2, and counts of ratios within each limit."""

    def __init__(self, floor: float):
        self.floor = floor

    def empty(self) -> PyTree:
        counts = {"count": np.zeros((), np.int32), "within": np.zeros(3, np.int32)}
        return {**counts, "sums": np.zeros((4, 2), np.float32)}

    def update(self, state: PyTree, output: Depths, label: Depths, present: Present) -> PyTree:
        valid = has_depth(label) & of_rank(present, label.ndim)
        truth = jnp.where(valid, label, 1.0)
        output = jnp.where(valid, jnp.maximum(output, self.floor), 1.0)
        error = output - truth
        ratio = output / truth
        # log1p is more accurate than log for a ratio near 1.
        close = jnp.abs(error) < truth / 2
        log = jnp.where(close, jnp.log1p(jnp.where(close, error / truth, 0.0)), jnp.log(ratio))
        sums = jnp.stack([jnp.abs(error), jnp.abs(error) / truth, error**2, log**2])
        deviation = jnp.maximum(ratio, truth / output)
        within = [((deviation < 1.25**k) & valid).sum() for k in (1, 2, 3)]
        return {
            "count": state["count"] + valid.sum(),
            "sums": precise_add(state["sums"], precise_sum(sums)),
            "within": state["within"] + jnp.stack(within),
        }

    def compute(self, state: PyTree) -> TaskMetrics:
        count = int(state["count"]) or float("nan")
        mean = np.asarray(state["sums"], np.float64).sum(-1) / count
        within = np.asarray(state["within"]) / count
        return {
            "rmse": float(np.sqrt(mean[2])),
            "abs_err": float(mean[0]),
            "abs_rel": float(mean[1]),
            "log_rmse": float(np.sqrt(mean[3])),
            **{f"delta_{k}": float(fraction) for k, fraction in enumerate(within, 1)},
        }
