"""Depth: one distance per pixel."""

import dataclasses
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np

from mtljax.tasks.base import Metrics, require_shape
from mtljax.tasks.dense import PixelTask
from mtljax.tasks.drawing import paint_values
from mtljax.tasks.metric_spec import MetricSpec
from mtljax.tasks.raw import plane
from mtljax.tasks.settings import require_choice, require_positive
from mtljax.tasks.streaming import of_rank, precise_add, precise_sum

Kind = Literal["l1", "berhu", "silog"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Depth(PixelTask):
    """A distance per pixel. Output and labels: [B, H, W], in the label's own unit.

    A pixel counts where its label is finite and > 0. With prediction p (at least `floor`) and truth
    t, over all such pixels of the data set:

        abs_err   mean |p - t|              abs_rel  mean |p - t| / t
        rmse      sqrt(mean (p - t)^2)      log_rmse sqrt(mean (ln p - ln t)^2)
        delta_k   share of pixels with max(p / t, t / p) < 1.25^k, k = 1, 2, 3

    Where papers take these per image and average over images (KITTI), the numbers differ.

    References:
      Eigen et al., 2014, arXiv:1406.2283, for the metrics and `silog`; Laina et al., 2016,
      arXiv:1606.00373, for `berhu`
    """

    kind: Kind = "l1"
    """Loss of a pixel, with e = (p - t) / `scale` and d = ln p - ln t:
    `l1`: |e|;
    `berhu`: |e| up to c and (e^2 + c^2) / 2c beyond, c a fifth of the image's largest |e|;
    `silog`: d^2 - `balance` * d * (the image's mean d), whose mean over an image is Eigen's
    mean d^2 - `balance` * (mean d)^2. Below `floor`, ln p goes on as a straight line."""
    balance: float = 0.5
    """Of `silog`: 0 is the plain log error, at 1 an error of scale costs nothing."""
    center: float = 1.0
    """A typical depth: what an untrained network predicts."""
    scale: float = 1.0
    """A typical distance from `center`."""
    floor: float = 0.01
    """The smallest depth that metrics let a network predict, so that logarithms exist."""

    main_metric = "rmse"
    metric_specs = {
        "rmse": MetricSpec("root mean square error", higher_is_better=False),
        "abs_err": MetricSpec("mean absolute error", higher_is_better=False),
        "abs_rel": MetricSpec("mean relative error", higher_is_better=False),
        "log_rmse": MetricSpec("root mean square log error", higher_is_better=False),
        "delta_1": MetricSpec("delta 1", higher_is_better=True),
        "delta_2": MetricSpec("delta 2", higher_is_better=True),
        "delta_3": MetricSpec("delta 3", higher_is_better=True),
    }

    def __post_init__(self):
        super().__post_init__()
        require_choice(self, "kind", Kind)
        require_positive(self, "center", "scale", "floor")

    def head(self):
        return self.dense_head(outputs=1, squeeze=True, center=self.center, scale=self.scale)

    def pixel_losses(self, output, label):
        valid = measured(label)
        label = jnp.where(valid, label, self.center)
        if self.kind == "silog":
            return self._silog(output, label, valid), valid
        error = jnp.abs(output - label) / self.scale
        if self.kind == "berhu":
            return _berhu(error, valid), valid
        return error, valid

    def _silog(self, output, label, valid):
        high = jnp.maximum(output, self.floor)
        below = jnp.minimum(output - self.floor, 0.0) / self.floor
        difference = jnp.where(valid, jnp.log(high) + below - jnp.log(label), 0.0)
        count = jnp.maximum(valid.sum((1, 2), keepdims=True), 1)
        mean = difference.sum((1, 2), keepdims=True) / count.astype(difference.dtype)
        return difference**2 - self.balance * difference * mean

    @property
    def metrics(self):
        return _DepthErrors(self.floor)

    def check(self, labels):
        require_shape(self.name, labels, (None, None))
        empty = ~np.asarray([(np.isfinite(x) & (x > 0)).any() for x in labels], bool)
        if empty.any():
            raise ValueError(
                f"task {self.name!r}: label of example {int(empty.argmax())} has no pixel with a "
                "finite depth > 0 (mark a missing one in `present`)"
            )

    def constant(self, labels, size):
        """The mean depth."""
        mean = labels.mean(dtype=np.float64, where=measured(labels))
        return np.full(size, mean, np.float32)

    def read(self, value):
        return plane(value).astype(np.float32)

    def blank(self, size):
        return np.zeros(size, np.float32)

    def warp(self, label, warp):
        """What is seen larger is nearer."""
        return warp.plane(label, fill=0) / warp.zoom

    def contents(self, label):
        return label[measured(label)]

    def decode(self, output):
        """[B, H, W]: at least `floor`."""
        return jnp.maximum(output, self.floor)

    def picture(self, value, image):
        del image
        value = np.asarray(value, np.float64)
        known = np.where(np.isfinite(value) & (value > 0), value, np.nan)
        return paint_values(known, *self._shown, "magma_r")

    @property
    def legend(self):
        values = np.linspace(*self._shown, 5)
        colors = paint_values(values[None], *self._shown, "magma_r")[0]
        return tuple((f"{value:.3g}", color) for value, color in zip(values, colors, strict=True))

    @property
    def _shown(self) -> tuple[float, float]:
        """The depths between which a picture has different colours."""
        return max(0.0, self.center - 2 * self.scale), self.center + 2 * self.scale


def measured(label):
    """Which pixels carry a depth."""
    return (label > 0) & (label < np.inf)


def _berhu(error, valid):
    largest = jnp.where(valid, error, 0.0).max((1, 2), keepdims=True)
    limit = jax.lax.stop_gradient(jnp.maximum(largest / 5, 1e-6))
    return jnp.where(error <= limit, error, (error**2 + limit**2) / (2 * limit))


class _DepthErrors(Metrics):
    """Sums of |e|, |e| / t, e^2 and (ln p / t)^2, and counts of the ratios within limits."""

    def __init__(self, floor: float):
        self.floor = floor

    def empty(self):
        return {
            "count": np.zeros((), np.int32),
            "sums": np.zeros((4, 2), np.float32),
            "within": np.zeros(3, np.int32),
        }

    def update(self, state, output, label, present):
        valid = measured(label) & of_rank(present, label.ndim)
        truth = jnp.where(valid, label, 1.0)
        output = jnp.where(valid, jnp.maximum(output, self.floor), 1.0)
        error = output - truth
        ratio = output / truth
        # Near a ratio of 1 its logarithm has more digits in this form.
        close = jnp.abs(error) < truth / 2
        log = jnp.where(close, jnp.log1p(jnp.where(close, error / truth, 0.0)), jnp.log(ratio))
        sums = jnp.stack([jnp.abs(error), jnp.abs(error) / truth, error**2, log**2])
        off = jnp.maximum(ratio, truth / output)
        within = [((off < 1.25**k) & valid).sum() for k in (1, 2, 3)]
        return {
            "count": state["count"] + valid.sum(),
            "sums": precise_add(state["sums"], precise_sum(sums)),
            "within": state["within"] + jnp.stack(within),
        }

    def compute(self, state):
        count = int(state["count"])
        sums = np.asarray(state["sums"], np.float64).sum(-1)
        mean = sums / count if count else np.full(4, np.nan)
        within = np.asarray(state["within"]) / count if count else np.full(3, np.nan)
        return {
            "rmse": float(np.sqrt(mean[2])),
            "abs_err": float(mean[0]),
            "abs_rel": float(mean[1]),
            "log_rmse": float(np.sqrt(mean[3])),
            **{f"delta_{k}": float(share) for k, share in enumerate(within, 1)},
        }
