"""Surface normals: a direction per pixel."""

import dataclasses

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from mtljax.tasks.base import Metrics, require_finite, require_shape
from mtljax.tasks.dense import PixelTask
from mtljax.tasks.metric_spec import MetricSpec
from mtljax.tasks.streaming import of_rank, precise_add, precise_sum

LIMITS = (11.25, 22.5, 30.0)
"""Degrees within which a normal is counted as right."""
BINS_PER_DEGREE = 100


@dataclasses.dataclass(frozen=True, kw_only=True)
class Normals(PixelTask):
    """A direction per pixel. Output: vectors [B, H, W, 3] of any length. Labels: [B, H, W, 3],
    x to the right, y up (or down, see `y_up`), z along the line of sight: mirroring the image
    negates x, turning it turns (x, y).

    A pixel counts where its label is finite and not zero. Loss: 1 - cos of the angle between
    prediction and truth (both scaled to length 1). Metrics, in degrees, over all such pixels of the
    data set: `mean`, `median` and `rmse` of the angle, and `within_11.25`, `within_22.5`,
    `within_30`, the share of pixels with a smaller angle. A prediction of length 0 counts as 90.

    The median is that of the whole data set, by a histogram with bins of 0.01 degrees in which it
    is interpolated: it is off by less than 0.01. Everything else is exact.

    References:
      Eigen & Fergus, 2015, arXiv:1411.4734, for the loss; Fouhey et al., 2013, "Data-Driven 3D
      Primitives for Single Image Understanding", for the metrics
    """

    y_up: bool = True
    """Whether y points up in the image, or down. It matters only where images are turned."""

    main_metric = "mean"
    metric_specs = {
        "mean": MetricSpec("mean angle", higher_is_better=False, unit="°"),
        "median": MetricSpec("median angle", higher_is_better=False, unit="°"),
        "rmse": MetricSpec("root mean square error", higher_is_better=False),
        "within_11.25": MetricSpec("within 11.25°", higher_is_better=True),
        "within_22.5": MetricSpec("within 22.5°", higher_is_better=True),
        "within_30": MetricSpec("within 30°", higher_is_better=True),
    }

    def head(self):
        return self.dense_head(outputs=3)

    def pixel_losses(self, output, label):
        valid = directed(label)
        truth = jnp.where(valid[..., None], label, 1.0)
        return 1 - _dot(output, truth) * _inverse_length(output) * _inverse_length(truth), valid

    @property
    def metrics(self):
        return _Angles()

    def check(self, labels):
        require_shape(self.name, labels, (None, None, 3))
        require_finite(self.name, labels)
        empty = ~(labels != 0).reshape(len(labels), -1).any(-1)
        if empty.any():
            raise ValueError(
                f"task {self.name!r}: label of example {int(empty.argmax())} has no pixel with a "
                "normal that is not zero (mark a missing one in `present`)"
            )

    def constant(self, labels, size):
        """The mean direction; of length 0 if the directions cancel each other."""
        known = labels[directed(labels)].astype(np.float64)
        mean = (known / np.linalg.norm(known, axis=-1, keepdims=True)).mean(0)
        mean /= max(np.linalg.norm(mean), np.finfo(np.float32).tiny)
        return np.broadcast_to(mean.astype(np.float32), (*size, 3))

    def read(self, value):
        found = np.asarray(value)
        if found.ndim != 3 or found.shape[-1] != 3 or found.dtype.kind != "f":
            raise ValueError(
                f"an array of shape {found.shape} and type {found.dtype}; must be vectors "
                "(x to the right, y, z), floating [H, W, 3]"
            )
        return found.astype(np.float32)

    def blank(self, size):
        return np.zeros((*size, 3), np.float32)

    def warp(self, label, warp):
        moved = warp.plane(label, fill=0)
        down = np.asarray([-1.0 if self.y_up else 1.0, 1.0], label.dtype)  # of (y, x)
        turned = warp.directions(moved[..., 1::-1] * down) * down
        return warp.xp.concatenate([turned[..., ::-1], moved[..., 2:]], -1).astype(label.dtype)

    def contents(self, label):
        return label[directed(label)].ravel()

    def decode(self, output):
        """[B, H, W, 3]: vectors of length 1."""
        return unit(output)

    def text(self, value):
        value = np.asarray(value)
        known = value[(value != 0).any(-1)]
        return "mean " + " ".join(f"{x:.2f}" for x in known.mean(0)) if len(known) else "nothing"

    def picture(self, value, image):
        del image
        value = np.asarray(value, np.float64)
        known = np.isfinite(value).all(-1) & (value != 0).any(-1)
        safe = np.where(known[..., None], value, 1.0)
        rgb = (safe / np.linalg.norm(safe, axis=-1, keepdims=True) + 1) * 127.5
        return np.where(known[..., None], np.round(rgb), 0).astype(np.uint8)


def directed(label: Float[Array, "*batch 3"]) -> Bool[Array, "*batch"]:
    """Which pixels carry a normal."""
    return (abs(label) < np.inf).all(-1) & (label != 0).any(-1)


def unit(vector: Float[Array, "*batch 3"]) -> Float[Array, "*batch 3"]:
    """The same direction with length 1; zero stays zero."""
    return vector * _inverse_length(vector)[..., None]


def _dot(a, b):
    """By component: sums over an axis of 3 are slow on CPUs."""
    return a[..., 0] * b[..., 0] + a[..., 1] * b[..., 1] + a[..., 2] * b[..., 2]


def _inverse_length(vector):
    """0 for a vector of length 0, with a gradient of 0."""
    square = _dot(vector, vector)
    some = square > 0
    return jnp.where(some, 1 / jnp.sqrt(jnp.where(some, square, 1.0)), 0.0)


class _Angles(Metrics):
    """A histogram of the angles, their sum and sum of squares, counts of those within limits."""

    def empty(self):
        return {
            "histogram": np.zeros(180 * BINS_PER_DEGREE, np.int32),
            "sums": np.zeros((2, 2), np.float32),
            "within": np.zeros(len(LIMITS), np.int32),
        }

    def update(self, state, output, label, present):
        valid = directed(label) & of_rank(present, label.ndim - 1)
        angle = jnp.where(valid, _degrees(output, jnp.where(valid[..., None], label, 1.0)), 0.0)
        bins = len(state["histogram"])
        cell = jnp.clip((angle * BINS_PER_DEGREE).astype(jnp.int32), 0, bins - 1)
        within = [((angle < limit) & valid).sum() for limit in LIMITS]
        return {
            "histogram": state["histogram"]
            + jnp.zeros(bins, jnp.int32).at[cell].add(valid.astype(jnp.int32)),
            "sums": precise_add(state["sums"], precise_sum(jnp.stack([angle, angle**2]))),
            "within": state["within"] + jnp.stack(within),
        }

    def compute(self, state):
        histogram = np.asarray(state["histogram"], np.int64)
        count = int(histogram.sum())
        nan = float("nan")
        mean, square = np.asarray(state["sums"], np.float64).sum(-1) / (count or nan)
        shares = np.asarray(state["within"]) / (count or nan)
        return {
            "mean": float(mean),
            "median": _median(histogram) if count else nan,
            "rmse": float(np.sqrt(square)),
            **{f"within_{limit:g}": float(s) for limit, s in zip(LIMITS, shares, strict=True)},
        }


def _degrees(output, label):
    """By atan2, which unlike arccos is accurate near 0."""
    across = jnp.cross(output, label)
    angle = jnp.arctan2(jnp.sqrt(_dot(across, across)), _dot(output, label)) * (180 / np.pi)
    return jnp.where((output == 0).all(-1), 90.0, angle)


def _median(histogram: np.ndarray) -> float:
    """The mean of the two middle values, each taken to lie evenly with the others in its bin."""
    ends = np.cumsum(histogram)
    count = int(ends[-1])
    middle = np.asarray([(count - 1) // 2, count // 2])
    cell = np.searchsorted(ends, middle, side="right")
    share = (middle - (ends[cell] - histogram[cell]) + 0.5) / histogram[cell]
    return float((cell + share).mean() / BINS_PER_DEGREE)
