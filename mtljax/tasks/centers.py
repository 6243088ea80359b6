"""Objects as points: heat-map targets of box centers, their loss, and decoding into boxes."""

from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

OVERLAP = 0.7
"""IoU of a box with itself after a shift by the radius of its Gaussian along both axes."""


class Targets(NamedTuple):
    """Targets of a batch of images with up to N boxes each."""

    heat: Float[Array, "B h w C"]
    """1 at the center of an object, less around it."""
    center: Bool[Array, "B h w C"]
    """True at the center of an object."""
    y: Int[Array, "B N"]
    """Row of each box's center."""
    x: Int[Array, "B N"]
    """Column of each box's center."""
    shape: Float[Array, "B N 4"]
    """ln height, ln width, y and x offset from the position's corner; in positions."""
    known: Bool[Array, "B N"]
    """Mask of the boxes that are not padding."""


def targets(
    boxes: Float[Array, "B N 4"],
    classes: Int[Array, "B N"],
    *,
    size: tuple[int, int],
    num_classes: int,
    stride: int,
) -> Targets:
    """Returns the targets for boxes (y0, x0, y1, x1) in pixels.

    Boxes that are empty or of class -1 are padding. `size` is the height and width of the heat map,
    `stride` its pixels per position.
    """
    known = (classes >= 0) & (boxes[..., 2:] > boxes[..., :2]).all(-1)
    boxes = jnp.where(known[..., None], boxes, jnp.asarray([0.0, 0.0, 1.0, 1.0]).reshape(1, 1, 4))
    low, high = boxes[..., :2] / stride, boxes[..., 2:] / stride
    extent, center = high - low, (low + high) / 2
    last = jnp.asarray(size, jnp.int32).reshape(1, 1, 2) - 1
    position = jnp.clip(jnp.floor(center).astype(jnp.int32), 0, last)
    y, x = position[..., 0], position[..., 1]

    sigma = (2 * _radius(extent) + 1) / 6
    rows = jnp.arange(size[0]).reshape(1, 1, -1) - y[..., None]
    columns = jnp.arange(size[1]).reshape(1, 1, -1) - x[..., None]
    bell = lambda steps: jnp.exp(-(steps.astype(sigma.dtype) ** 2) / (2 * sigma[..., None] ** 2))
    gaussians = bell(rows)[..., None] * bell(columns)[..., None, :]

    # Padding has the class num_classes, which is removed.
    slot = jnp.where(known, classes, num_classes).astype(jnp.int32)
    by_class = lambda slot, g: jnp.zeros((num_classes + 1, *size)).at[slot].max(g)[:num_classes]
    heat = jnp.moveaxis(jax.vmap(by_class)(slot, gaussians), 1, -1)
    images = jnp.arange(len(slot))[:, None]
    centers = jnp.zeros((len(slot), *size, num_classes + 1), bool).at[images, y, x, slot].set(True)
    shape = jnp.concatenate([jnp.log(extent), center - position.astype(center.dtype)], -1)
    return Targets(heat, centers[..., :num_classes], y, x, shape, known)


def _radius(extent: Float[Array, "B N 2"]) -> Float[Array, "B N"]:
    """r with (h - r)(w - r) = k h w, k such that the shifted box has IoU `OVERLAP`."""
    total, area = extent.sum(-1), extent.prod(-1)
    k = 2 * OVERLAP / (1 + OVERLAP)
    return (total - jnp.sqrt(total**2 - 4 * (1 - k) * area)) / 2


def focal_loss(logits: Float[Array, "B h w C"], target: Targets) -> Float[Array, " B"]:
    """Penalty-reduced focal loss (powers 2 and 4), summed over each image."""
    p = jax.nn.sigmoid(logits)
    hit = (1 - p) ** 2 * jax.nn.softplus(-logits)
    miss = (1 - target.heat) ** 4 * p**2 * jax.nn.softplus(logits)
    return jnp.where(target.center, hit, miss).sum((1, 2, 3))


def detections(
    output: Float[Array, "B h w c"], *, num_classes: int, stride: int, most: int
) -> dict[str, Array]:
    """Returns the `most` largest local maxima (over 3 x 3 positions) as boxes, best first."""
    logits = output[..., :num_classes]
    batch, height, width, _ = logits.shape
    highest = nn.max_pool(logits, window_shape=(3, 3), padding="SAME")
    ranked = jnp.where(logits == highest, logits, -jnp.inf).reshape(batch, -1)
    scores, cell = jax.lax.top_k(ranked, min(most, ranked.shape[1]))
    position, classes = split(cell, num_classes)
    y, x = split(position, width)
    shapes = output[..., num_classes:].reshape(batch, height * width, 4)
    shape = jnp.take_along_axis(shapes, position[..., None], 1)
    center = jnp.stack([y, x], -1).astype(output.dtype) + shape[..., 2:]
    # Limited to twice the image, so that the exponential is finite.
    half = jnp.exp(jnp.minimum(shape[..., :2], jnp.log(2.0 * max(height, width)))) / 2
    boxes = jnp.concatenate([center - half, center + half], -1) * stride
    return {"boxes": boxes, "classes": classes, "scores": jax.nn.sigmoid(scores)}


def split(cell: Int[Array, "*B"], width: int) -> tuple[Int[Array, "*B"], Int[Array, "*B"]]:
    """Returns the row and column of cells of a table that is numbered row by row."""
    cell = jnp.asarray(cell)
    row = jax.lax.div(cell, jnp.asarray(width, cell.dtype))
    return row, cell - row * width  # not // and %, which jax2onnx supports for fixed batches only
