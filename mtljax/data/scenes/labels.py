"""Exact labels of an image, from the rays through its pixel centers."""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PyTree, UInt8

from mtljax.data.scenes.objects import KIND_OF_OBJECT, MAX_PER_KIND, OBJECTS, TABLE_PARTS
from mtljax.data.scenes.raycasting import Hits
from mtljax.data.scenes.scene import Camera, Scene, lamp_direction
from mtljax.data.scenes.solids import FACES, KINDS, dot

CLASSES = ("floor", "wall", "ceiling", "window", "table", *KINDS)
"""Classes of the segmentation."""
_FLOOR, _WALL, _CEILING, _WINDOW, _TABLE, _FIRST_KIND = range(6)
_OF_ROOM = (_FLOOR, _CEILING, _WALL, _WALL, _WALL, _WALL, _CEILING, _CEILING)
_CLASS_OF = np.array(
    [*(_FIRST_KIND + KIND_OF_OBJECT), *[_TABLE] * TABLE_PARTS, *_OF_ROOM], np.uint8
)
SMALLEST = 1 / 400
"""Minimum area of a visible object, as a share of the image."""
_CENTER_WIDTH = 0.25
"""Standard deviation of the saliency weight around the image center, as a share of the image."""


def make_labels(scene: Scene, hits: Hits, size: int) -> dict[str, PyTree]:
    """Returns all labels, see `mtljax.data.sources.scenes`, from the hits at the pixel centers."""
    grid = lambda x: x.reshape(*x.shape[:-1], size, size)
    surface, glass = grid(hits.surface), grid(hits.glass)
    normals = [grid(dot(axis[:, None], hits.normal)) for axis in scene.camera.axes]
    masks = surface == np.arange(OBJECTS).reshape(-1, 1, 1)
    area = masks.sum((1, 2))
    visible = area >= SMALLEST * size**2
    counts = visible.reshape(len(KINDS), MAX_PER_KIND).sum(1)
    middle = scene.solids.center[:OBJECTS]
    return {
        "segmentation": jnp.where(glass, np.uint8(_WINDOW), jnp.asarray(_CLASS_OF)[surface]),
        "depth": grid(hits.depth),
        "normals": jnp.stack(normals, -1),
        "edges": edges(surface * (FACES + 1) + jnp.where(glass, FACES, grid(hits.face))),
        "saliency": saliency(masks, visible),
        "objects": {
            "boxes": jnp.where(visible[:, None], tight_boxes(masks), 0.0),
            "classes": jnp.where(visible, KIND_OF_OBJECT, -1).astype(jnp.int32),
        },
        "centers": centers(middle, jnp.where(visible, area, 0), scene.camera, size),
        "kinds": (counts > 0).astype(jnp.uint8),
        "counts": counts.astype(jnp.float32),
        "light": lamp_direction(scene),
        "room": scene.room.kind,
    }


def edges(face: Int[Array, "H W"]) -> UInt8[Array, "H W"]:
    """Returns 1 where the pixel to the right or below shows another face."""
    right = jnp.pad(face[:, :-1] != face[:, 1:], ((0, 0), (0, 1)))
    below = jnp.pad(face[:-1] != face[1:], ((0, 1), (0, 0)))
    return (right | below).astype(jnp.uint8)


def tight_boxes(masks: Bool[Array, "N H W"]) -> Float[Array, "N 4"]:
    """Returns (y0, x0, y1, x1) of each mask, in pixels; row i covers i ... i + 1."""
    ends = []
    for axis in (2, 1):
        occupied = masks.any(axis)
        ends.append((occupied.argmax(1), occupied.shape[1] - occupied[:, ::-1].argmax(1)))
    (y0, y1), (x0, x1) = ends
    return jnp.stack([y0, x0, y1, x1], -1).astype(jnp.float32)


def saliency(masks: Bool[Array, "N H W"], visible: Bool[Array, " N"]) -> UInt8[Array, "H W"]:
    """Returns 1 on the object with the largest area, weighted toward the image center."""
    size = masks.shape[-1]
    away = (np.arange(size) + 0.5) / size - 0.5
    bell = np.exp(-(away**2) / (2 * _CENTER_WIDTH**2)).astype(np.float32)
    weight = jnp.where(masks, bell[:, None] * bell, 0.0).sum((1, 2))
    best = jnp.where(visible, weight, 0.0).argmax()
    return (masks[best] & visible[best]).astype(jnp.uint8)


def centers(
    middle: Float[Array, "N 3"], area: Int[Array, " N"], camera: Camera, size: int
) -> Float[Array, "K 3"]:
    """Returns (y, x, 1) of the center of the most visible object of each kind, or zeros if none."""
    away = (middle - camera.position).T
    right, up, back = (dot(axis[:, None], away) for axis in camera.axes)
    x = (1 + right / (-back * camera.slope)) / 2 * size
    y = (1 - up / (-back * camera.slope)) / 2 * size
    inside = (area > 0) & (back < 0) & (x >= 0) & (x < size) & (y >= 0) & (y < size)
    points = jnp.stack([y, x, jnp.ones_like(x)], -1)
    points = jnp.where(inside[:, None], points, 0.0).reshape(-1, MAX_PER_KIND, 3)
    area = area.reshape(-1, MAX_PER_KIND)
    is_first = area[:, 0] >= area[:, 1]
    return jnp.where(is_first[:, None], points[:, 0], points[:, 1])
