"""Parts of a scene as arrays, and random rooms, cameras and lights.

World coordinates: x right, y ahead, z up, in meters; the floor is at z = 0. Camera coordinates:
x right, y up, z back: visible points have z < 0, and normals that face the camera have z > 0.
"""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from mtljax.data.scenes.solids import Solids

ROOM_TYPES = ("chamber", "corridor", "hall", "attic")
"""Kinds of rooms."""
CHAMBER, CORRIDOR, HALL, ATTIC = range(len(ROOM_TYPES))
"""Index into `ROOM_TYPES`."""
FLOOR, CEILING, LEFT, RIGHT, FRONT, BACK = range(6)
"""Index of a plane of a room."""
PLANES = 8
"""Planes of a room: those six, and two slopes under the roof."""
AHEAD = 3.0
"""Distance from the camera, in meters, to the floor point of the label `light`."""


class Room(NamedTuple):
    """Convex room: n . p <= b for all planes (n, b)."""

    kind: Int[Array, ""]
    """Index into `ROOM_TYPES`."""
    normal: Float[Array, "8 3"]
    """Outward normal of each plane."""
    offset: Float[Array, " 8"]
    """Distance b of each plane, in meters."""
    size: Float[Array, "3"]
    """Width, depth, height; x is in -width / 2 .. width / 2, y in 0 .. depth."""
    ridge: Float[Array, ""]
    """Half the width of an attic's flat ceiling; for other rooms, half the room's width."""


class Window(NamedTuple):
    """Bright rectangle in a wall."""

    wall: Int[Array, ""]
    """LEFT, RIGHT or BACK."""
    center: Float[Array, "3"]
    """Center in the world, in meters."""
    half: Float[Array, "2"]
    """Half the width and half the height."""


class Camera(NamedTuple):
    """Pinhole camera with square pixels."""

    position: Float[Array, "3"]
    """Position in the world, in meters."""
    axes: Float[Array, "3 3"]
    """Rows: directions of the camera's x, y and z in the world."""
    slope: Float[Array, ""]
    """Tangent of half the field of view."""
    yaw: Float[Array, ""]
    """Angle to the left of straight ahead, in radians."""


class Lights(NamedTuple):
    """Lamp below the ceiling, and light from the window."""

    position: Float[Array, "2 3"]
    """Positions of the lamp and of the window, in meters."""
    color: Float[Array, "2 3"]
    """The light at distance d is color / (1 + d^2)."""
    ambient: Float[Array, "3"]
    """Light of each channel that reaches every surface."""


class Materials(NamedTuple):
    """Appearance of M surfaces, with the same distribution for all kinds of object."""

    base: Float[Array, "M 3"]
    """Albedo."""
    other: Float[Array, "M 3"]
    """Albedo of the pattern's second color."""
    pattern: Float[Array, "M 5"]
    """Weight of each of `shading.PATTERNS`."""
    frequency: Float[Array, " M"]
    """Periods of the pattern per meter."""
    phase: Float[Array, "M 3"]
    """Shift of the pattern along each axis."""
    gloss: Float[Array, " M"]
    """Strength of highlights."""
    sharpness: Float[Array, " M"]
    """Exponent of highlights."""


class Sensor(NamedTuple):
    """Conversion of light to pixel values."""

    exposure: Float[Array, ""]
    """Target of the mean brightness."""
    balance: Float[Array, "3"]
    """Gain of each channel."""
    noise: Float[Array, ""]
    """Strength of the noise, which grows with the square root of the light."""


class Scene(NamedTuple):
    """Complete scene; an image also depends on its size."""

    room: Room
    """Walls, floor and ceiling."""
    window: Window
    """Window in a wall."""
    camera: Camera
    """Camera."""
    lights: Lights
    """Lamp and light from the window."""
    solids: Solids
    """Objects, then the parts of the table."""
    materials: Materials
    """Materials of the solids, in their order, then of the planes."""
    sensor: Sensor
    """Sensor of the camera."""


Numbers = float | Float[Array, "..."]
"""One number, or an array of them."""


def lerp(low: Numbers, high: Numbers, u: Float[Array, "..."]) -> Float[Array, "..."]:
    """Maps uniform numbers in [0, 1) to uniform numbers in [low, high)."""
    return low + (high - low) * u


_MIN_SIZE = (3.6, 4.0, 2.4), (1.7, 8.0, 2.3), (8.0, 9.0, 4.0), (4.0, 5.0, 2.8)
_MAX_SIZE = (6.0, 6.5, 3.0), (2.5, 14.0, 2.9), (13.0, 14.0, 6.0), (6.0, 8.0, 3.6)
"""Minimum and maximum width, depth and height of each type of room."""
_NORMALS = (0, 0, -1), (0, 0, 1), (-1, 0, 0), (1, 0, 0), (0, -1, 0), (0, 1, 0)


def draw_room(u: Float[Array, "6"]) -> Room:
    """Returns a random room; all types are equally likely."""
    kind = (len(ROOM_TYPES) * u[0]).astype(jnp.int32)
    smallest, largest = jnp.asarray([_MIN_SIZE, _MAX_SIZE], jnp.float32)[:, kind]
    size = lerp(smallest, largest, u[1:4])
    half, depth, height = size[0] / 2, size[1], size[2]
    attic = kind == ATTIC
    knee = lerp(0.7, 1.3, u[4])
    ridge = jnp.where(attic, lerp(0.2, 0.8, u[5]), half)
    # A slope contains (half, knee) and (ridge, height); without one, it is out of the way.
    rise, run = height - knee, jnp.where(attic, half - ridge, 1.0)
    across, up = jnp.stack([rise, run]) * (rise**2 + run**2) ** -0.5
    slope = jnp.where(attic, across * half + up * knee, 1e3)
    zero = jnp.zeros_like(up)
    slopes = jnp.stack([-across, zero, up, across, zero, up]).reshape(2, 3)
    normal = jnp.concatenate([jnp.asarray(_NORMALS, jnp.float32), slopes])
    offset = jnp.stack([zero, height, half, half, zero, depth, slope, slope])
    return Room(kind, normal, offset, size, ridge)


def draw_camera(u: Float[Array, "7"], room: Room) -> Camera:
    """Returns a camera at eye height near the front wall, directed ahead and slightly down."""
    aside = lerp(-0.22, 0.22, u[0])
    tallest = jnp.where(room.kind == ATTIC, 1.6, 1.9)
    position = jnp.stack([aside * room.size[0], lerp(0.2, 0.8, u[1]), lerp(1.2, tallest, u[2])])
    turn = jnp.where(room.kind == CORRIDOR, 10.0, 28.0)
    # A camera on the right is turned to the left, so that more of the room is visible.
    yaw = jnp.deg2rad(lerp(-turn, turn, u[3]) + 25 * aside)
    pitch, roll = jnp.deg2rad(lerp(-22, -7, u[4])), jnp.deg2rad(lerp(-4, 4, u[5]))
    cy, sy, cp, sp = jnp.cos(yaw), jnp.sin(yaw), jnp.cos(pitch), jnp.sin(pitch)
    zero = jnp.zeros_like(cy)
    right, ahead = jnp.stack([cy, sy, zero]), jnp.stack([-sy * cp, cy * cp, sp])
    above = jnp.stack([sy * sp, -cy * sp, cp])
    x = jnp.cos(roll) * right + jnp.sin(roll) * above
    y = jnp.cos(roll) * above - jnp.sin(roll) * right
    slope = jnp.tan(jnp.deg2rad(lerp(56, 72, u[6])) / 2)
    return Camera(position, jnp.stack([x, y, -ahead]), slope, yaw)


def draw_window(u: Float[Array, "5"], room: Room, camera: Camera) -> Window:
    """Returns a window to the left, to the right or ahead; in an attic ahead, in the high wall."""
    half_room, depth, height = room.size[0] / 2, room.size[1], room.size[2]
    attic = room.kind == ATTIC
    side = jnp.where(attic, 1.0, u[0])
    wall = jnp.where(side < 1 / 3, LEFT, jnp.where(side < 2 / 3, RIGHT, BACK))
    ahead = wall == BACK
    wide = jnp.where(attic, room.ridge + 0.5, half_room)
    half_width = jnp.minimum(lerp(0.4, 0.9, u[1]), jnp.where(ahead, wide - 0.3, depth / 4))
    half = jnp.stack([half_width, lerp(0.4, 0.65, u[2])])
    along = camera.position[1] + lerp(1.8, jnp.minimum(5.0, depth - 2.0), u[3])
    shift = jnp.maximum(wide - half[0] - 0.2, 0.0) * lerp(-1, 1, u[3])
    x = jnp.where(ahead, shift, jnp.where(wall == LEFT, -half_room, half_room))
    z = lerp(1.4, jnp.clip(height - 0.9, 1.45, 2.2), u[4])
    return Window(wall, jnp.stack([x, jnp.where(ahead, depth, along), z]), half)


def draw_lights(u: Float[Array, "7"], room: Room, camera: Camera, window: Window) -> Lights:
    """Returns the lights; the lamp is the brighter one in most of the room."""
    width, depth, height = room.size
    aside = jnp.where(room.kind == ATTIC, room.ridge + 0.3, jnp.minimum(0.38 * width, 3.0))
    along = camera.position[1] + lerp(0.2, jnp.minimum(5.5, 0.85 * depth), u[1])
    lamp = jnp.stack([lerp(-1, 1, u[0]) * aside, along, height - lerp(0.2, 0.6, u[2])])
    one = jnp.ones_like(height)
    warm = jnp.stack([one, lerp(0.78, 1.0, u[3]), lerp(0.55, 0.95, u[3])])
    cold = jnp.stack([lerp(0.75, 1.0, u[4]), lerp(0.88, 1.0, u[4]), one])
    bright = 1 + lamp[2] ** 2  # equal brightness on the floor at any height of the lamp
    return Lights(
        position=jnp.stack([lamp, window.center - 0.15 * room.normal[window.wall]]),
        color=bright * jnp.stack([warm, cold * lerp(0.15, 0.6, u[5])]),
        ambient=lerp(0.12, 0.3, u[6]) * (warm + cold) / 2,
    )


def draw_sensor(u: Float[Array, "5"]) -> Sensor:
    """Returns random exposure, white balance and noise."""
    return Sensor(lerp(0.2, 0.45, u[0]), lerp(0.92, 1.08, u[1:4]), lerp(0.02, 0.08, u[4]))


def lamp_direction(scene: Scene) -> Float[Array, "3"]:
    """Returns the direction from the floor `AHEAD` meters ahead to the lamp, in camera axes."""
    camera = scene.camera
    ahead = jnp.stack([-jnp.sin(camera.yaw), jnp.cos(camera.yaw)])
    floor = jnp.append(camera.position[:2] + AHEAD * ahead, 0.0)
    away = scene.lights.position[0] - floor
    return (camera.axes * away).sum(-1) * (away**2).sum() ** -0.5


def in_window(window: Window, point: Float[Array, "3 R"], frame: float = 0.0) -> Bool[Array, " R"]:
    """True for points of the window's wall in the window, excluding a frame of this width."""
    ahead = window.wall == BACK
    along = jnp.where(ahead, point[0] - window.center[0], point[1] - window.center[1])
    up = point[2] - window.center[2]
    return (jnp.abs(along) <= window.half[0] - frame) & (jnp.abs(up) <= window.half[1] - frame)
