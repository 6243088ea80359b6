"""Appearance of surfaces: patterns, light, shadows, and the view through the window."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from mtljax.data.scenes.objects import COUNTS, OBJECTS
from mtljax.data.scenes.raycasting import Hits
from mtljax.data.scenes.scene import Scene, in_window
from mtljax.data.scenes.solids import distances, dot, normalize, pairwise_dot

PATTERNS = ("checks", "stripes", "marble", "dots", "tiles")
"""Patterns of surfaces."""
_BIAS = 2e-3
"""Share of the distance to a light within which a surface casts no shadow on itself."""
_FRAME = 0.05
"""Width of the window frame, in meters."""


def shade(scene: Scene, hits: Hits) -> Float[Array, "3 R"]:
    """Returns the light (red, green, blue) that reaches the camera along each ray; no unit."""
    material = jax.tree.map(lambda x: x.T[..., hits.surface], scene.materials)
    at = material.frequency * hits.local + material.phase
    amount = pattern(material.pattern, at, hits.constant)
    albedo = material.base + amount * (material.other - material.base)
    to_eye = normalize(-hits.directions)
    from_sky = 0.75 + 0.25 * hits.normal[2]
    light = scene.lights.ambient[:, None] * (from_sky * ambient_visibility(scene, hits)) * albedo
    for i in range(len(scene.lights.position)):
        diffuse, glint = reflection(scene, hits, i, to_eye, material.sharpness)
        light += scene.lights.color[i][:, None] * (diffuse * albedo + glint * material.gloss)
    return jnp.where(hits.glass, window_view(scene, hits, to_eye), light)


def reflection(
    scene: Scene, hits: Hits, index: int, to_eye: Float[Array, "3 R"], sharpness: Float[Array, " R"]
) -> tuple[Float[Array, " R"], Float[Array, " R"]]:
    """Returns the shares of a light's color in (diffuse reflection, specular reflection)."""
    source = scene.lights.position[index]
    away = source[:, None] - hits.point
    square = dot(away, away)
    to_light = away * jax.lax.rsqrt(square)
    strength = 1 / (1 + square)
    if index == 1:  # the window shines into the room
        inward = -scene.room.normal[scene.window.wall]
        strength *= jnp.maximum(-dot(to_light, inward[:, None]), 0.0)
    free = distances(scene.solids, COUNTS, source, -away).min(0) > 1 - _BIAS
    facing = dot(to_light, hits.normal)
    strength = jnp.where(free & (facing > 0), strength, 0.0)
    halfway = jnp.maximum(dot(normalize(to_light + to_eye), hits.normal), 1e-6)
    return strength * facing, strength * jnp.exp(sharpness * jnp.log(halfway))


def ambient_visibility(scene: Scene, hits: Hits) -> Float[Array, " R"]:
    """Returns the share of ambient light, in (0, 1]; less below objects and where walls meet."""
    near = OBJECTS + 1  # the objects and the table's top
    solids = scene.solids
    square = jnp.where(solids.exists, (solids.size**2).max(-1), 0.0)[:near, None]
    away = solids.center[:near].T[..., None] - hits.point[:, None]
    distance = dot(away, away)
    above = jnp.maximum(dot(away, hits.normal[:, None]), 0.0) * jax.lax.rsqrt(distance)
    other = hits.surface != np.arange(near)[:, None]
    covered = jnp.where(other, above * square / (distance + 0.3 * square), 0.0).sum(0)
    gap = scene.room.offset[:, None] - pairwise_dot(scene.room.normal, hits.point)
    corners = (1 - 0.35 / (1 + (gap / 0.35) ** 2)).prod(0)
    return corners / (1 + covered)


def window_view(scene: Scene, hits: Hits, to_eye: Float[Array, "3 R"]) -> Float[Array, "3 R"]:
    """Returns the view through the window: frame, sky, and ground below the horizon."""
    up = -to_eye[2]
    sky = jnp.stack([1.5 - 1.6 * up, 1.6 - 0.9 * up, 1.8 - 0.2 * up])
    ground = jnp.stack([0.55 + up, 0.65 + up, 0.45 + up])
    frame = 0.7 * scene.lights.ambient[:, None] * jnp.ones_like(up)
    pane = in_window(scene.window, hits.point, _FRAME)
    return jnp.where(pane, jnp.maximum(jnp.where(up > 0, sky, ground), 0.05), frame)


def wave(x: Array) -> Array:
    """Approximates sin(2 pi x) by parabolas: XLA's sine is slow on CPUs."""
    x = x - jnp.floor(x + 0.5)
    return x * (8 - 16 * jnp.abs(x))


def pattern(
    weights: Float[Array, "5 R"], at: Float[Array, "3 R"], constant: Bool[Array, "3 R"]
) -> Float[Array, " R"]:
    """Returns the share of a material's second color at each point, in [0, 1].

    Args:
      weights: Weight of each of `PATTERNS`; all but one are 0.
      at: Points in space, in periods of the pattern.
      constant: True for coordinates that are constant on the face; these are ignored, since their
        arbitrary value could hide the pattern on the entire face.
    """
    x, y, z = jnp.where(constant, 0.25, at)
    step = lambda v: jnp.clip(0.5 + v, 0, 1)
    sx, sy, sz = wave(x), wave(y), wave(z)
    bent = wave(0.7 * x + 0.4 * sy + 0.3 * sz + 0.15 * wave(2.1 * y + 1.3 * z))
    line = lambda v, fixed: jnp.where(fixed, 0.0, jnp.abs(v - jnp.floor(v) - 0.5))
    spot = lambda s, fixed: jnp.where(fixed, 1.0, 0.5 + 0.5 * s)
    cx, cy, cz = constant
    joint = jnp.maximum(jnp.maximum(line(x, cx), line(y, cy)), line(z, cz))
    dots = spot(sx, cx) * spot(sy, cy) * spot(sz, cz)
    amounts = (
        step(6 * sx * sy * sz),
        step(2 * wave(x + 0.3 * y + z)),
        0.5 + 0.3 * bent + 0.2 * wave(1.9 * x + 1.3 * y - 1.1 * z + 0.5 * bent),
        step(6 * (dots - 0.45)),
        step(20 * (joint - 0.46)),
    )
    return sum(weight * amount for weight, amount in zip(weights, amounts, strict=True))
