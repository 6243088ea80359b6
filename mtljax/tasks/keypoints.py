"""Keypoints: positions of points in the image."""

import dataclasses
from collections.abc import Sequence
from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, PyTree

from mtljax.tasks import checks, drawing, point_lists
from mtljax.tasks.base import Changes, SumAndCount
from mtljax.tasks.centers import split
from mtljax.tasks.dense import DenseTask
from mtljax.tasks.distances import softmax_distance
from mtljax.tasks.metric import Metrics, MetricSpec, Present, TaskMetrics
from mtljax.tasks.streaming import fill_absent, masked_mean, masked_sum, precise_add, precise_sum
from mtljax.tasks.warps import Pixels, Warp

Maps = Float[Array, "B h w K"]
"""Logits of the points at each position."""
Points = Float[Array, "B K 3"]
"""y, x and visibility of each point."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Keypoints(DenseTask):
    """`num_keypoints` points per image, by a heat map each. Output: logits [B, h, w, K].

    Labels: [B, K, 3]: y and x in pixels, and 1 if the point is visible, else 0. The pixel in row i
    covers i..i + 1, its middle is i + 0.5. h and w are the image's size over `stride`, rounded up.

    Loss of a visible point: the Kullback-Leibler divergence from a Gaussian around it, normalized
    over the map, to the softmax over the map; 0 at best. Prediction: the largest logit's position,
    moved to the vertex of the parabolas through it and its neighbors along each axis, by at
    most half a position (exact for a Gaussian).

    Metrics over all visible points of the data set, with distances as fractions of the image's
    diagonal: `nme`, the mean distance; `pck`, the fraction of points closer than `limit`;
    `auc`, the area under the fraction of points within d, for d from 0 to `auc_limit`, over
    `auc_limit` (1 is best). Papers on faces or bodies divide by one of their lengths instead.

    References:
      Zhang et al., 2020, arXiv:1910.06278, for sub-pixel positions from a Gaussian
    """

    num_keypoints: int
    """Number of points per image."""
    stride: int = 1
    """Pixels per position of the heat map, along each side."""
    sigma: float = 1.5
    """Standard deviation of the Gaussian, in positions of the heat map."""
    limit: float = 0.05
    """Distance below which `pck` counts a point as right, as a fraction of the diagonal."""
    auc_limit: float = 0.1
    """Upper limit of the distance in `auc`, as a fraction of the diagonal."""
    pairs: tuple[tuple[int, int], ...] = ()
    """Pairs of points that a mirror image exchanges, such as the left and the right eye. Points
    without a pair remain, such as the nose."""
    mirror: Literal["keep"] | None = None
    """`keep`: a mirror image exchanges no points without a pair. Flips of several points need this
    or `pairs`."""
    order: point_lists.Order = "yx"
    """Order of coordinates in tables and files: `xy`, as in most, or `yx`. Arrays in memory, and
    predictions, always have y first."""

    accepts_empty_columns = True
    former = {"mirror": "keep"}
    main_metric = "nme"
    metric_specs = {
        "nme": MetricSpec("normalized mean error", higher_is_better=False),
        "pck": MetricSpec("share of points found", higher_is_better=True),
        "auc": MetricSpec("area under the curve of points found", higher_is_better=True),
    }

    def __post_init__(self) -> None:
        super().__post_init__()
        checks.require_least(self, 1, "num_keypoints", "stride")
        checks.require_positive(self, "sigma", "limit", "auc_limit")
        checks.require_choice(self, "order", point_lists.Order)
        checks.require_setting(self, "mirror", self.mirror in (None, "keep"), "keep or none")
        points = [point for pair in self.pairs for point in pair]
        different = len(points) == len(set(points))
        checks.require_setting(self, "pairs", different, "pairs of different points")
        for pair in self.pairs:
            if len(pair) != 2 or not all(0 <= point < self.num_keypoints for point in pair):
                last = self.num_keypoints - 1
                raise ValueError(
                    f"task {self.name!r}: pairs must be two points in 0..{last} each, not {pair}"
                )

    def head(self) -> nn.Module:
        return self.dense_head(outputs=self.num_keypoints, stride=self.stride)

    def loss(self, output: Maps, label: Points, present: Present) -> SumAndCount:
        return masked_sum(*self._losses(output, fill_absent(label, present)))

    def error(self, output: Maps, label: Points) -> Float[Array, " B"]:
        return masked_mean(*self._losses(output, label))

    def distance(self, output: Maps, target: Maps, temperature: float) -> Float[Array, " B"]:
        points_last = lambda x: jnp.moveaxis(x.reshape(x.shape[0], -1, x.shape[-1]), 1, -1)
        return softmax_distance(points_last(output), points_last(target), temperature)

    def _losses(
        self, output: Maps, label: Points
    ) -> tuple[Float[Array, "B K"], Bool[Array, "B K"]]:
        """Returns the loss of each point and the mask of visible points."""
        target = self._gaussian(output.shape[1:3], label)
        flat = lambda x: x.reshape(x.shape[0], -1, x.shape[-1])
        target, log = jax.nn.log_softmax(flat(target), 1), jax.nn.log_softmax(flat(output), 1)
        return (jnp.exp(target) * (target - log)).sum(1), label[..., 2] > 0

    def _gaussian(self, size: tuple[int, ...], label: Points) -> Maps:
        """Returns the logarithm of the Gaussians, not normalized."""

        def axis(count: int, center: Float[Array, "B K"]) -> Float[Array, "B n K"]:
            middles = jnp.arange(count, dtype=center.dtype).reshape(1, -1, 1) + 0.5
            return (middles - center[:, None] / self.stride) ** 2 / (2 * self.sigma**2)

        y, x = axis(size[0], label[..., 0]), axis(size[1], label[..., 1])
        return -(y[:, :, None] + x[:, None])

    @property
    def metrics(self) -> Metrics:
        return _Distances(self)

    def check(self, labels: np.ndarray) -> None:
        checks.require_shape(self.name, labels, (self.num_keypoints, 3))
        points, visible = labels[..., :2], labels[..., 2]
        rule = "the third number must be 0 (not visible) or 1 (visible)"
        checks.require(self.name, (visible == 0) | (visible == 1), visible, rule)
        valid = (visible == 0)[..., None] | (np.isfinite(points) & (points >= 0))
        rule = "y and x of a visible point must be >= 0, in pixels"
        checks.require(self.name, valid, points, rule)

    def constant_output(self, labels: np.ndarray, size: Pixels) -> Float[np.ndarray, "h w K"]:
        """Normal distribution with the mean and variance of the training points."""
        visible = labels[..., 2:] > 0
        count = np.maximum(visible.sum(0), 1)
        points = np.where(visible, labels[..., :2], 0.0).astype(np.float64)
        mean = np.where(visible.any(0), points.sum(0) / count, np.asarray(size) / 2)
        variance = (((points - mean) ** 2) * visible).sum(0) / count

        def axis(i: int) -> Float[np.ndarray, "n K"]:
            middles = np.arange(-(-size[i] // self.stride))[:, None] + 0.5
            spread = variance[:, i] / self.stride**2 + self.sigma**2
            return (middles - mean[:, i] / self.stride) ** 2 / (2 * spread)

        return -(axis(0)[:, None] + axis(1)).astype(np.float32)

    def check_columns(self, columns: Sequence[str]) -> None:
        point_lists.check_columns(columns, self.num_keypoints, self.order)

    def parse(self, value: Any) -> Float[np.ndarray, "K 3"]:
        """Parses two coordinates of each point, in `order`, or these and its visibility.

        An empty point is not visible. Visibility is 0, or, as in COCO, 1 (occluded) or 2 (visible),
        which are both visible here.
        """
        return point_lists.parse(value, self.num_keypoints, self.order)

    def clean(
        self, label: Float[np.ndarray, "K 3"], size: Pixels
    ) -> tuple[Float[np.ndarray, "K 3"], Changes]:
        """Marks points outside of the image as not visible.

        Raises:
          ValueError: They are far outside, but inside with y and x exchanged.
        """
        kept = point_lists.without_outside(label, size, self.order)
        outside = int((label[:, 2] > kept[:, 2]).sum())
        return kept, {("dropped", "points outside of their image"): outside} if outside else {}

    def check_mirror(self, *, vertical: bool) -> None:
        if self.num_keypoints > 1 and not self.pairs and self.mirror is None:
            raise ValueError(
                f"task {self.name!r}: a mirror image may exchange points, such as the left and the "
                "right eye: set pairs=((0, 1), ...), or mirror='keep' if it exchanges none, or "
                "leave out flip"
            )

    def placeholder(self, size: Pixels) -> Float[np.ndarray, "K 3"]:
        return np.zeros((self.num_keypoints, 3), np.float32)

    def warp(self, label: Array, warp: Warp) -> Array:
        """Points that leave the image become invisible."""
        xp = warp.xp
        points = warp.points(label[:, :2])
        inside = ((points >= 0) & (points <= np.asarray(warp.size))).all(-1)
        visible = xp.where(inside, label[:, 2], 0.0)[:, None]
        moved = xp.concatenate([xp.where(visible > 0, points, 0.0), visible], -1)
        moved = moved.astype(label.dtype)
        return moved[np.asarray(self._mirrored_points)] if warp.mirrored else moved

    @property
    def _mirrored_points(self) -> list[int]:
        """For each point, the index of its mirror image."""
        other = list(range(self.num_keypoints))
        for left, right in self.pairs:
            other[left], other[right] = right, left
        return other

    def label_values(self, label: np.ndarray) -> Float[np.ndarray, " n"]:
        return label[label[:, 2] > 0, :2].ravel()

    def num_unknown(self, label: np.ndarray) -> int:
        return int((label[:, 2] == 0).sum())

    def decode(self, output: Maps) -> Points:
        """Returns y, x, and the probability at the largest position of the heat map."""
        position, offset = peaks(output)
        flat = output.reshape(output.shape[0], -1, output.shape[-1])
        probability = jax.nn.softmax(flat, 1).max(1)
        points = (position + offset) * self.stride
        return jnp.concatenate([points, probability[..., None]], -1)

    def restore(self, prediction: Array, warp: Warp) -> Array:
        """Points with their probability; those outside of the image move to its edge."""
        points = warp.xp.clip(warp.points(prediction[:, :2]), 0, np.asarray(warp.size, np.float32))
        return warp.xp.concatenate([points, prediction[:, 2:]], -1)

    def text(self, value: Any) -> str:
        return " ".join(f"({y:.0f}, {x:.0f})" for y, x, known in np.asarray(value) if known > 0)

    def picture(self, value: Any, image: np.ndarray) -> drawing.RGB:
        rgb, colors = drawing.as_rgb(image), drawing.class_colors(self.num_keypoints)
        for (y, x, known), color in zip(value, colors, strict=True):
            if known > 0:
                drawing.draw_dot(rgb, np.asarray([y, x]), color)
        return rgb


def peaks(logits: Maps) -> tuple[Float[Array, "B K 2"], Float[Array, "B K 2"]]:
    """Returns the middle (y, x) of the largest position, and the offset of the vertex from it."""
    batch, height, width, count = logits.shape
    flat = logits.reshape(batch, height * width, count)
    best = flat.argmax(1)
    y, x = split(best, width)

    def at(dy: int, dx: int) -> Float[Array, "B K"]:
        cell = jnp.clip(y + dy, 0, height - 1) * width + jnp.clip(x + dx, 0, width - 1)
        return jnp.take_along_axis(flat, cell[:, None], 1)[:, 0]

    middle = at(0, 0)
    vertical = _vertex(at(-1, 0) - middle, at(1, 0) - middle, (y > 0) & (y < height - 1))
    horizontal = _vertex(at(0, -1) - middle, at(0, 1) - middle, (x > 0) & (x < width - 1))
    position = jnp.stack([y, x], -1).astype(logits.dtype) + 0.5
    return position, jnp.stack([vertical, horizontal], -1)


def _vertex(
    before: Float[Array, "B K"], after: Float[Array, "B K"], inside: Bool[Array, "B K"]
) -> Float[Array, "B K"]:
    """Vertex of the parabola through (-1, before), (0, 0), (1, after), both values <= 0."""
    curved = (before + after < 0) & inside
    bend = jnp.where(curved, before + after, -1.0)
    return jnp.where(curved, (before - after) / (2 * bend), 0.0)


class _Distances(Metrics):
    """Sums of distances and of areas for `auc`, and counts of points and of right points."""

    def __init__(self, task: Keypoints):
        self.task = task

    def empty(self) -> PyTree:
        count = lambda: np.zeros((), np.int32)
        return {"count": count(), "right": count(), "sums": np.zeros((2, 2), np.float32)}

    def update(self, state: PyTree, output: Maps, label: Points, present: Present) -> PyTree:
        label = fill_absent(label, present)
        visible = label[..., 2] > 0
        position, offset = peaks(output)
        # The position first, which has about the label's magnitude, to preserve digits.
        error = (position * self.task.stride - label[..., :2]) + offset * self.task.stride
        height, width = output.shape[1:3]
        diagonal = float(np.hypot(height, width)) * self.task.stride
        distance = jnp.sqrt((jnp.where(visible[..., None], error, 0.0) ** 2).sum(-1)) / diagonal
        area = jnp.where(visible, jnp.maximum(1 - distance / self.task.auc_limit, 0.0), 0.0)
        sums = precise_sum(jnp.stack([distance, area]))
        return {
            "count": state["count"] + visible.sum(),
            "right": state["right"] + ((distance < self.task.limit) & visible).sum(),
            "sums": precise_add(state["sums"], sums),
        }

    def compute(self, state: PyTree) -> TaskMetrics:
        count = int(state["count"]) or float("nan")
        distance, area = np.asarray(state["sums"], np.float64).sum(-1) / count
        return {"nme": float(distance), "pck": int(state["right"]) / count, "auc": float(area)}
