"""Camera rays and their intersections with the scene."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from mtljax.data.scenes.objects import COUNTS, KIND_OF_SOLID, SOLIDS, SURFACES
from mtljax.data.scenes.scene import PLANES, Camera, Room, Scene, in_window
from mtljax.data.scenes.solids import distances, dot, face_and_normal, normalize, pairwise_dot


class Hits(NamedTuple):
    """First surface along each of R rays."""

    directions: Float[Array, "3 R"]
    """Directions of the rays, of depth 1 m."""
    surface: Int[Array, " R"]
    """Index of the solid, or `SOLIDS` + index of the plane."""
    depth: Float[Array, " R"]
    """Distance along the camera's axis, in meters."""
    point: Float[Array, "3 R"]
    """Point in the world."""
    normal: Float[Array, "3 R"]
    """Outward normal in the world, of length 1."""
    face: Int[Array, " R"]
    """Face of the solid; see `face_and_normal`."""
    glass: Bool[Array, " R"]
    """True for the window."""
    local: Float[Array, "3 R"]
    """Point in the solid's frame, in meters from its center."""
    constant: Bool[Array, "3 R"]
    """True for coordinates of `local` that are constant on the face."""


def ray_directions(
    camera: Camera, y: Float[Array, " h"], x: Float[Array, " w"], size: int
) -> Float[Array, "3 h*w"]:
    """Returns directions of rays through image points (y, x), in pixels from the upper left."""
    right = jnp.tile((2 * x / size - 1) * camera.slope, len(y))
    up = jnp.repeat((1 - 2 * y / size) * camera.slope, len(x))
    a = camera.axes
    return a[0, :, None] * right + a[1, :, None] * up - a[2, :, None]


def trace(scene: Scene, rays: Float[Array, "3 R"]) -> Hits:
    """Returns the first hits of rays from the camera, whose directions have depth 1 m."""
    start, solids = scene.camera.position, scene.solids
    to_solids = distances(solids, COUNTS, start, rays)
    to_planes = _plane_distances(scene.room, start, rays)
    surface, depth = _nearest(jnp.concatenate([to_solids, to_planes]))
    point = start[:, None] + depth * rays
    identity = jnp.broadcast_to(jnp.eye(3), (PLANES, 3, 3))
    axes = jnp.concatenate([solids.axes, identity]).reshape(-1, 9)
    size = jnp.concatenate([solids.size, jnp.ones((PLANES, 3))])
    center = jnp.concatenate([solids.center, jnp.zeros((PLANES, 3))])
    plane_normal = jnp.concatenate([jnp.zeros((SOLIDS, 3)), -scene.room.normal])
    kind = jnp.asarray(np.append(KIND_OF_SOLID, np.zeros(PLANES, int)))
    axes, size, center, plane_normal, kind = jax.tree.map(
        lambda x: x.T[..., surface], (axes, size, center, plane_normal, kind)
    )
    axes = axes.reshape(3, 3, -1)
    away = point - center
    local = jnp.stack([dot(axis, away) for axis in axes])
    face, outward = face_and_normal(kind, local / size)
    is_plane = surface >= SOLIDS
    outward = jnp.where(is_plane, plane_normal, normalize(outward / size))
    normal = jnp.stack([dot(axes[:, i], outward) for i in range(3)])
    at_wall = surface == SOLIDS + scene.window.wall
    return Hits(
        directions=rays,
        surface=surface,
        depth=depth,
        point=point,
        normal=normal,
        face=jnp.where(is_plane, 0, face),
        glass=at_wall & in_window(scene.window, point),
        local=local,
        constant=jnp.abs(outward) > 0.9999,
    )


def _plane_distances(
    room: Room, start: Float[Array, "3"], rays: Float[Array, "3 R"]
) -> Float[Array, "8 R"]:
    """Returns the distances at which rays leave the room through each plane, or infinity."""
    toward = pairwise_dot(room.normal, rays)
    gap = room.offset - dot(room.normal.T, start[:, None])
    out = toward > 1e-9
    return jnp.where(out, gap[:, None] / jnp.where(out, toward, 1.0), jnp.inf)


def _nearest(distance: Float[Array, "S R"]) -> tuple[Int[Array, " R"], Float[Array, " R"]]:
    """Returns (argmin, min) for each ray; on CPUs, comparisons are faster than `argmin`."""
    index, minimum = jnp.zeros(distance.shape[1:], jnp.int32), distance[0]
    for i in range(1, SURFACES):
        nearer = distance[i] < minimum
        index, minimum = jnp.where(nearer, i, index), jnp.where(nearer, distance[i], minimum)
    return index, minimum
