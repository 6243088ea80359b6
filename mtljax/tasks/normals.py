"""Surface normals: one direction per pixel."""

import dataclasses
from typing import Any, Literal

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PyTree

from mtljax.tasks import checks, drawing, parsing
from mtljax.tasks.base import Changes
from mtljax.tasks.dense import PixelLosses, PixelTask
from mtljax.tasks.metric import Metrics, MetricSpec, Present, TaskMetrics
from mtljax.tasks.streaming import of_rank, precise_add, precise_sum
from mtljax.tasks.warps import Pixels, Warp
from mtljax.utils.text import form

Vectors = Float[Array, "B H W 3"]
"""Normal of each pixel."""
LIMITS = (11.25, 22.5, 30.0)
"""Angles in degrees below which a normal counts as right."""
BINS_PER_DEGREE = 100
"""Resolution of the histogram of angles."""
MIN_LENGTH = 0.1
"""Length of a vector in a picture below which it is the zero vector, up to rounding."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Normals(PixelTask):
    """A direction per pixel. Output: vectors [B, H, W, 3] of any length. Labels: [B, H, W, 3],
    x to the right, y up (or down, see `y_up`), z along the line of sight: a mirror image has
    -x, a rotated image a rotated (x, y).

    A pixel counts where its label is finite and not zero. Loss: 1 - cos of the angle between
    prediction and truth. Metrics, in degrees, over all such pixels of the data set: `mean`,
    `median` and `rmse` of the angle, and `within_11.25`, `within_22.5`, `within_30`, the fraction
    of pixels with a smaller angle. The angle of a prediction of length 0 is 90.

    The median is that of the entire data set, interpolated in a histogram with bins of 0.01
    degrees: its error is below 0.01. The other metrics are exact.

    References:
      Eigen & Fergus, 2015, arXiv:1411.4734, for the loss; Fouhey et al., 2013, "Data-Driven 3D
      Primitives for Single Image Understanding", for the metrics
    """

    y_up: bool = True
    """True if y points up in the image, False if down. It only affects rotated images."""

    negated: tuple[Literal["x", "y", "z"], ...] = ()
    """Components with the opposite sign in label files."""

    main_metric = "mean"
    one_file_type = False
    metric_specs = {
        "mean": MetricSpec("mean angle", higher_is_better=False, unit="°"),
        "median": MetricSpec("median angle", higher_is_better=False, unit="°"),
        "rmse": MetricSpec("root mean square error", higher_is_better=False),
        **{f"within_{x:g}": MetricSpec(f"within {x:g}°", higher_is_better=True) for x in LIMITS},
    }

    def head(self) -> nn.Module:
        return self.dense_head(outputs=3)

    def pixel_losses(self, output: Vectors, label: Vectors) -> PixelLosses:
        valid = has_normal(label)
        truth = jnp.where(valid[..., None], label, 1.0)
        return 1 - _dot(output, truth) * _inverse_length(output) * _inverse_length(truth), valid

    @property
    def metrics(self) -> Metrics:
        return _Angles()

    def check(self, labels: np.ndarray) -> None:
        checks.require_shape(self.name, labels, (None, None, 3))
        checks.require_finite(self.name, labels)
        valid = (labels != 0).reshape(len(labels), -1).any(-1)
        checks.require_pixel(self.name, valid, "a normal that is not zero")

    def constant_output(self, labels: np.ndarray, size: Pixels) -> Float[np.ndarray, "H W 3"]:
        """Mean direction; 0 if the directions cancel each other."""
        known = labels[has_normal(labels)].astype(np.float64)
        mean = (known / np.linalg.norm(known, axis=-1, keepdims=True)).mean(0)
        mean /= max(np.linalg.norm(mean), np.finfo(np.float32).tiny)
        return np.broadcast_to(mean.astype(np.float32), (*size, 3))

    def parse(self, value: Any) -> Float[np.ndarray, "H W 3"]:
        """Parses vectors, or colors: from black to white, a component grows from -1 to 1.

        Colors are normalized. Black, and the gray of the zero vector, are pixels without a normal.
        """
        values = np.asarray(value)
        if values.ndim == 3 and values.shape[-1] == 4 and values.dtype.kind == "u":
            values = parsing.without_opacity(values)
        is_color = values.dtype in (np.uint8, np.uint16)
        if values.ndim != 3 or values.shape[-1] != 3 or not (is_color or values.dtype.kind == "f"):
            raise ValueError(
                f"an array of {form(values)}; must be vectors "
                "(x to the right, y, z), floating [H, W, 3], or colors of 8 or 16 bits"
            )
        signs = np.asarray([-1.0 if axis in self.negated else 1.0 for axis in "xyz"], np.float32)
        if not is_color:
            return values.astype(np.float32) * signs
        vectors = values.astype(np.float32) / np.float32(np.iinfo(values.dtype).max / 2) - 1
        length = np.linalg.norm(vectors, axis=-1, keepdims=True)
        known = (values != 0).any(-1, keepdims=True) & (length > MIN_LENGTH)
        return np.where(known, vectors / np.where(known, length, 1.0), 0.0) * signs

    def clean(self, label: Any, size: Pixels) -> tuple[Any, Changes]:
        if (label != 0).any():
            return label, {}
        return None, {("missing", "labels: maps without a normal"): 1}

    def placeholder(self, size: Pixels) -> Float[np.ndarray, "H W 3"]:
        return np.zeros((*size, 3), np.float32)

    def warp(self, label: Array, warp: Warp) -> Array:
        moved = warp.plane(label, fill=0)
        down = np.asarray([-1.0 if self.y_up else 1.0, 1.0], label.dtype)  # of (y, x)
        turned = warp.directions(moved[..., 1::-1] * down) * down
        return warp.xp.concatenate([turned[..., ::-1], moved[..., 2:]], -1).astype(label.dtype)

    def label_values(self, label: np.ndarray) -> Float[np.ndarray, " n"]:
        return label[has_normal(label)].ravel()

    def decode(self, output: Vectors) -> Vectors:
        """Returns vectors of length 1; zero vectors are unchanged."""
        return output * _inverse_length(output)[..., None]

    def text(self, value: Any) -> str:
        value = np.asarray(value)
        known = value[(value != 0).any(-1)]
        return "mean " + " ".join(f"{x:.2f}" for x in known.mean(0)) if len(known) else "nothing"

    def picture(self, value: Any, image: np.ndarray) -> drawing.RGB:
        value = np.asarray(value, np.float64)
        known = has_normal(value)[..., None]
        safe = np.where(known, value, 1.0)
        rgb = (safe / np.linalg.norm(safe, axis=-1, keepdims=True) + 1) * 127.5
        return np.where(known, np.round(rgb), 0).astype(np.uint8)


def has_normal(label: Any) -> Bool[Array, "*size"]:
    """Returns the mask of pixels with a normal."""
    return (abs(label) < np.inf).all(-1) & (label != 0).any(-1)


def _dot(a: Float[Array, "*size 3"], b: Float[Array, "*size 3"]) -> Float[Array, "*size"]:
    """Scalar product by component: sums over an axis of 3 are slow on CPUs."""
    return a[..., 0] * b[..., 0] + a[..., 1] * b[..., 1] + a[..., 2] * b[..., 2]


def _inverse_length(vector: Float[Array, "*size 3"]) -> Float[Array, "*size"]:
    """1 / length; 0 for a zero vector, with a gradient of 0."""
    square = _dot(vector, vector)
    nonzero = square > 0
    return jnp.where(nonzero, 1 / jnp.sqrt(jnp.where(nonzero, square, 1.0)), 0.0)


class _Angles(Metrics):
    """Histogram of the angles, their sum and sum of squares, and counts within each limit."""

    def empty(self) -> PyTree:
        return {
            "histogram": np.zeros(180 * BINS_PER_DEGREE, np.int32),
            "sums": np.zeros((2, 2), np.float32),
            "within": np.zeros(len(LIMITS), np.int32),
        }

    def update(self, state: PyTree, output: Vectors, label: Vectors, present: Present) -> PyTree:
        valid = has_normal(label) & of_rank(present, label.ndim - 1)
        angle = jnp.where(valid, _degrees(output, jnp.where(valid[..., None], label, 1.0)), 0.0)
        bins = len(state["histogram"])
        cell = jnp.clip((angle * BINS_PER_DEGREE).astype(jnp.int32), 0, bins - 1)
        within = [((angle < limit) & valid).sum() for limit in LIMITS]
        counts = jnp.zeros(bins, jnp.int32).at[cell].add(valid.astype(jnp.int32))
        return {
            "histogram": state["histogram"] + counts,
            "sums": precise_add(state["sums"], precise_sum(jnp.stack([angle, angle**2]))),
            "within": state["within"] + jnp.stack(within),
        }

    def compute(self, state: PyTree) -> TaskMetrics:
        histogram = np.asarray(state["histogram"], np.int64)
        count = int(histogram.sum()) or float("nan")
        mean, square = np.asarray(state["sums"], np.float64).sum(-1) / count
        within = np.asarray(state["within"]) / count
        return {
            "mean": float(mean),
            "median": _median(histogram) if histogram.any() else float("nan"),
            "rmse": float(np.sqrt(square)),
            **{f"within_{limit:g}": float(x) for limit, x in zip(LIMITS, within, strict=True)},
        }


def _degrees(output: Vectors, label: Vectors) -> Float[Array, "B H W"]:
    """Angle by atan2, which unlike arccos is accurate near 0."""
    across = jnp.cross(output, label)
    angle = jnp.arctan2(jnp.sqrt(_dot(across, across)), _dot(output, label)) * (180 / np.pi)
    return jnp.where((output == 0).all(-1), 90.0, angle)


def _median(histogram: Int[np.ndarray, " n"]) -> float:
    """Mean of the two middle values, by linear interpolation within their bins."""
    ends = np.cumsum(histogram)
    count = int(ends[-1])
    middle = np.asarray([(count - 1) // 2, count // 2])
    cell = np.searchsorted(ends, middle, side="right")
    offset = (middle - (ends[cell] - histogram[cell]) + 0.5) / histogram[cell]
    return float((cell + offset).mean() / BINS_PER_DEGREE)
