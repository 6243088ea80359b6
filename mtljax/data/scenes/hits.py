"""Rays from the camera, and what they hit."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from mtljax.data.scenes.furnish import COUNTS, KIND_OF_SOLID, SOLIDS, SURFACES
from mtljax.data.scenes.solids import distances, dot, each_dot, face_and_normal, unit
from mtljax.data.scenes.world import PLANES, Camera, Room, Scene, in_window


class Hits(NamedTuple):
    """The first surface along each of R rays."""

    directions: Float[Array, "3 R"]
    """Of the rays, one metre deep."""
    surface: Int[Array, " R"]
    """Index of the solid, or `SOLIDS` + index of the plane."""
    depth: Float[Array, " R"]
    """Along the camera's axis, in metres."""
    point: Float[Array, "3 R"]
    """In the world, like
    normal: outward, of length 1."""
    normal: Float[Array, "3 R"]
    face: Int[Array, " R"]
    """Of the solid; see `face_and_normal`."""
    glass: Bool[Array, " R"]
    """Whether this is the window."""
    local: Float[Array, "3 R"]
    """The point in the solid's own frame, in metres from its middle."""
    constant: Bool[Array, "3 R"]
    """Which coordinates of `local` are the same all over the face."""


def directions(
    camera: Camera, y: Float[Array, " h"], x: Float[Array, " w"], size: int
) -> Float[Array, "3 h*w"]:
    """Of rays through points (y, x) of an image, in pixels from its upper left corner."""
    right = jnp.tile((2 * x / size - 1) * camera.slope, len(y))
    up = jnp.repeat((1 - 2 * y / size) * camera.slope, len(x))
    a = camera.axes
    return a[0, :, None] * right + a[1, :, None] * up - a[2, :, None]


def trace(scene: Scene, rays: Float[Array, "3 R"]) -> Hits:
    """What rays from the camera, one metre deep, hit."""
    start = scene.camera.position
    surface, depth = _nearest(
        jnp.concatenate(
            [distances(scene.solids, COUNTS, start, rays), _to_planes(scene.room, start, rays)]
        )
    )
    point = start[:, None] + depth * rays
    solids, identity = scene.solids, jnp.broadcast_to(jnp.eye(3), (PLANES, 3, 3))
    axes = jnp.concatenate([solids.axes, identity]).reshape(-1, 9)
    size = jnp.concatenate([solids.size, jnp.ones((PLANES, 3))])
    center = jnp.concatenate([solids.center, jnp.zeros((PLANES, 3))])
    plane_normal = jnp.concatenate([jnp.zeros((SOLIDS, 3)), -scene.room.normal])
    kind = jnp.asarray(np.append(KIND_OF_SOLID, np.zeros(PLANES, int)))
    axes, size, center, plane_normal, kind = jax.tree.map(
        lambda of: of.T[..., surface], (axes, size, center, plane_normal, kind)
    )
    axes = axes.reshape(3, 3, -1)
    away = point - center
    local = jnp.stack([dot(axis, away) for axis in axes])
    face, outward = face_and_normal(kind, local / size)
    is_plane = surface >= SOLIDS
    outward = jnp.where(is_plane, plane_normal, unit(outward / size))
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


def _to_planes(room: Room, start: Float[Array, "3"], rays: Float[Array, "3 R"]):
    """Distances [8, R] at which rays leave the room by each plane; infinite if they never do."""
    toward = each_dot(room.normal, rays)
    gap = room.offset - dot(room.normal.T, start[:, None])
    out = toward > 1e-9
    return jnp.where(out, gap[:, None] / jnp.where(out, toward, 1.0), jnp.inf)


def _nearest(distance: Float[Array, "S R"]) -> tuple[Int[Array, " R"], Float[Array, " R"]]:
    """(index of the smallest, it), for each ray; by comparisons, quicker than `argmin` on CPUs."""
    which, least = jnp.zeros(distance.shape[1:], jnp.int32), distance[0]
    for i in range(1, SURFACES):
        nearer = distance[i] < least
        which, least = jnp.where(nearer, i, which), jnp.where(nearer, distance[i], least)
    return which, least
