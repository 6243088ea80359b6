"""Keypoints: where in the image certain points are."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from mtljax.tasks.base import Metrics, require, require_shape
from mtljax.tasks.centers import split
from mtljax.tasks.dense import DenseTask
from mtljax.tasks.drawing import as_rgb, class_colors, draw_dot
from mtljax.tasks.metric_spec import MetricSpec
from mtljax.tasks.raw import numbers
from mtljax.tasks.settings import require_least, require_positive
from mtljax.tasks.soft import softmax_distance
from mtljax.tasks.streaming import fill_absent, precise_add, precise_sum


@dataclasses.dataclass(frozen=True, kw_only=True)
class Keypoints(DenseTask):
    """`num_keypoints` points per image, by a heat map each. Output: logits [B, h, w, K].

    Labels: [B, K, 3]: y and x in pixels, and 1 where the point is visible, else 0. The pixel in row
    i covers i..i + 1, so its middle is at i + 0.5. h and w are the image's height and width over
    `stride`, rounded up.

    Loss of a visible point: the Kullback-Leibler divergence from a Gaussian around it, normalised
    over the map, to the softmax over the map; 0 at best. Prediction: the largest logit's position,
    moved to the vertex of the parabolas through it and its neighbours along each axis, by at
    most half a position (exact for a Gaussian).

    Metrics over all visible points of the data set, with distances as shares of the image's
    diagonal: `nme`, the mean distance; `pck`, the share of points closer than `limit`;
    `auc`, the area under the share of points within d, for d from 0 to `auc_limit`, over
    `auc_limit` (1 is best). Papers on faces or bodies divide by a length of the face or body
    instead of the diagonal.

    References:
      Zhang et al., 2020, arXiv:1910.06278, for reading positions between pixels off a Gaussian
    """

    num_keypoints: int
    stride: int = 1
    """Pixels per position of the heat map, along each side."""
    sigma: float = 1.5
    """Of the Gaussian, in positions of the heat map."""
    limit: float = 0.05
    """Largest distance of a point that `pck` counts as found, as a share of the diagonal."""
    auc_limit: float = 0.1
    """Where `auc` ends, as a share of the diagonal."""
    pairs: tuple[tuple[int, int], ...] = ()
    """Points that are each other's mirror image, as the left and the right eye."""

    main_metric = "nme"
    metric_specs = {
        "nme": MetricSpec("normalised mean error", higher_is_better=False),
        "pck": MetricSpec("share of points found", higher_is_better=True),
        "auc": MetricSpec("area under the curve of points found", higher_is_better=True),
    }

    def __post_init__(self):
        super().__post_init__()
        require_least(self, 1, "num_keypoints", "stride")
        require_positive(self, "sigma", "limit", "auc_limit")
        for pair in self.pairs:
            if len(pair) != 2 or not all(0 <= point < self.num_keypoints for point in pair):
                raise ValueError(
                    f"task {self.name!r}: pairs must be two points in 0..{self.num_keypoints - 1} "
                    f"each, not {pair}"
                )

    def head(self):
        return self.dense_head(outputs=self.num_keypoints, stride=self.stride)

    def loss(self, output, label, present):
        label = fill_absent(label, present)
        losses, visible = self._losses(output, label), label[..., 2] > 0
        return jnp.where(visible, losses, 0.0).sum(), visible.sum().astype(jnp.float32)

    def error(self, output, label):
        losses, visible = self._losses(output, label), label[..., 2] > 0
        count = jnp.maximum(visible.sum(-1), 1).astype(losses.dtype)
        return jnp.where(visible, losses, 0.0).sum(-1) / count

    def distance(self, output, target, temperature):
        points_last = lambda x: jnp.moveaxis(x.reshape(x.shape[0], -1, x.shape[-1]), 1, -1)
        return softmax_distance(points_last(output), points_last(target), temperature)

    def _losses(
        self, output: Float[Array, "B h w K"], label: Float[Array, "B K 3"]
    ) -> Float[Array, "B K"]:
        wanted = self._gaussian(output.shape[1:3], label)
        flat = lambda x: x.reshape(x.shape[0], -1, x.shape[-1])
        wanted, log = jax.nn.log_softmax(flat(wanted), 1), jax.nn.log_softmax(flat(output), 1)
        return (jnp.exp(wanted) * (wanted - log)).sum(1)

    def _gaussian(self, size: tuple[int, ...], label: Float[Array, "B K 3"]):
        """Logarithm of the Gaussians, not normalised: [B, h, w, K]."""

        def axis(count, at):
            middles = jnp.arange(count, dtype=at.dtype).reshape(1, -1, 1) + 0.5
            return (middles - at[:, None] / self.stride) ** 2 / (2 * self.sigma**2)

        y, x = axis(size[0], label[..., 0]), axis(size[1], label[..., 1])
        return -(y[:, :, None] + x[:, None])

    @property
    def metrics(self):
        return _Distances(self)

    def check(self, labels):
        require_shape(self.name, labels, (self.num_keypoints, 3))
        visible = labels[..., 2]
        good = np.ones(labels.shape, bool)
        good[..., 2] = (visible == 0) | (visible == 1)
        require(self.name, good, labels, "the third number must be 0 (not visible) or 1 (visible)")
        good[..., :2] = (visible == 0)[..., None] | (
            np.isfinite(labels[..., :2]) & (labels[..., :2] >= 0)
        )
        require(self.name, good, labels, "y and x of a visible point must be >= 0, in pixels")

    def constant(self, labels, size):
        """The normal distribution with the mean and the spread of the training points."""
        visible = labels[..., 2:] > 0
        count = np.maximum(visible.sum(0), 1)
        where = np.where(visible, labels[..., :2], 0.0).astype(np.float64)
        mean = np.where(visible.any(0), where.sum(0) / count, np.asarray(size) / 2)
        variance = (((where - mean) ** 2) * visible).sum(0) / count

        def axis(i):
            middles = np.arange(-(-size[i] // self.stride))[:, None] + 0.5
            spread = variance[:, i] / self.stride**2 + self.sigma**2
            return (middles - mean[:, i] / self.stride) ** 2 / (2 * spread)

        return -(axis(0)[:, None] + axis(1)).astype(np.float32)

    def read(self, value):
        """y and x, or y, x and whether it is visible, of each point; NaN or none: not visible."""
        found = numbers(value)
        for width in (3, 2):
            if found.size == width * self.num_keypoints:
                found = found.reshape(-1, width)
                visible = np.isfinite(found[:, :2]).all(1) & (found[:, width - 1] != 0)
                if width == 2:
                    visible = np.isfinite(found).all(1)
                where = np.where(visible[:, None], found[:, :2], 0.0)
                return np.concatenate([where, visible[:, None]], 1).astype(np.float32)
        raise ValueError(
            f"{found.size} numbers for {self.num_keypoints} points; each is y and x, or y, x and "
            "whether it is visible"
        )

    def blank(self, size):
        del size
        return np.zeros((self.num_keypoints, 3), np.float32)

    def warp(self, label, warp):
        """Points that leave the image are no longer visible."""
        xp = warp.xp
        at = warp.points(label[:, :2])
        inside = ((at >= 0) & (at < np.asarray(warp.size))).all(-1)
        visible = xp.where(inside, label[:, 2], 0.0)[:, None]
        moved = xp.concatenate([xp.where(visible > 0, at, 0.0), visible], -1).astype(label.dtype)
        return moved[np.asarray(self._other_side)] if warp.mirrored else moved

    @property
    def _other_side(self) -> list[int]:
        """For each point, the one that is called so in a mirror."""
        other = list(range(self.num_keypoints))
        for left, right in self.pairs:
            other[left], other[right] = right, left
        return other

    def contents(self, label):
        return label[label[:, 2] > 0, :2].ravel()

    def decode(self, output):
        """[B, K, 3]: y, x, and the share of the heat map that is at the largest position."""
        place, offset = peaks(output)
        flat = output.reshape(output.shape[0], -1, output.shape[-1])
        share = jax.nn.softmax(flat, 1).max(1)
        where = (place + offset) * self.stride
        return jnp.concatenate([where, share[..., None]], -1)

    def text(self, value):
        return " ".join(f"({y:.0f}, {x:.0f})" for y, x, known in np.asarray(value) if known > 0)

    def picture(self, value, image):
        rgb = as_rgb(image)
        for (y, x, known), color in zip(value, class_colors(self.num_keypoints), strict=True):
            if known > 0:
                draw_dot(rgb, np.asarray([y, x]), color)
        return rgb


def peaks(
    logits: Float[Array, "B h w K"],
) -> tuple[Float[Array, "B K 2"], Float[Array, "B K 2"]]:
    """Middle (y, x) of the largest position, and how far from it the vertex is."""
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
    place = jnp.stack([y, x], -1).astype(logits.dtype) + 0.5
    return place, jnp.stack([vertical, horizontal], -1)


def _vertex(before, after, inside):
    """Of the parabola through (-1, before), (0, 0), (1, after), where neither is above 0."""
    curved = (before + after < 0) & inside
    bend = jnp.where(curved, before + after, -1.0)
    return jnp.where(curved, (before - after) / (2 * bend), 0.0)


class _Distances(Metrics):
    """Sums of distance and of what `auc` makes of it, counts of points and of those found."""

    def __init__(self, task: Keypoints):
        self.task = task

    def empty(self):
        count = lambda: np.zeros((), np.int32)
        return {"count": count(), "found": count(), "sums": np.zeros((2, 2), np.float32)}

    def update(self, state, output, label, present):
        label = fill_absent(label, present)
        visible = label[..., 2] > 0
        place, offset = peaks(output)
        # First the part that is about as large as the label, so that no digits are lost.
        away = (place * self.task.stride - label[..., :2]) + offset * self.task.stride
        diagonal = float(np.hypot(*output.shape[1:3])) * self.task.stride
        distance = jnp.sqrt((jnp.where(visible[..., None], away, 0.0) ** 2).sum(-1)) / diagonal
        area = jnp.where(visible, jnp.maximum(1 - distance / self.task.auc_limit, 0.0), 0.0)
        sums = precise_sum(jnp.stack([distance, area]))
        return {
            "count": state["count"] + visible.sum(),
            "found": state["found"] + ((distance < self.task.limit) & visible).sum(),
            "sums": precise_add(state["sums"], sums),
        }

    def compute(self, state):
        count = int(state["count"]) or float("nan")
        distance, area = np.asarray(state["sums"], np.float64).sum(-1) / count
        return {"nme": float(distance), "pck": int(state["found"]) / count, "auc": float(area)}
