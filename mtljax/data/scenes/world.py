"""What is in a scene: its parts as arrays, and the room, the camera and the light at random.

The world's x goes right, y ahead and z up, in metres; the floor is at z = 0. The camera's x goes
right, y up and z back: what is seen has z < 0, and normals that face the camera have z > 0.
"""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from mtljax.data.scenes.solids import Solids

ROOM_TYPES = ("chamber", "corridor", "hall", "attic")
CHAMBER, CORRIDOR, HALL, ATTIC = range(len(ROOM_TYPES))
FLOOR, CEILING, LEFT, RIGHT, FRONT, BACK = range(6)
PLANES = 8
"""Around a room: those six, and two slopes under the roof."""
AHEAD = 3.0
"""Where on the floor the direction to the lamp is taken: in metres, ahead of the camera."""


class Room(NamedTuple):
    """Where n . p <= b for all planes (n, b)."""

    kind: Int[Array, ""]
    """Index into `ROOM_TYPES`."""
    normal: Float[Array, "8 3"]
    """Outward."""
    offset: Float[Array, " 8"]
    size: Float[Array, "3"]
    """Width, depth, height; x is in -width / 2 .. width / 2, y in 0 .. depth."""
    ridge: Float[Array, ""]
    """Half the width of an attic's flat ceiling; of other rooms, half the room's."""


class Window(NamedTuple):
    """A bright rectangle in a wall."""

    wall: Int[Array, ""]
    """LEFT, RIGHT or BACK."""
    center: Float[Array, "3"]
    half: Float[Array, "2"]
    """Half its width and half its height."""


class Camera(NamedTuple):
    """A pinhole camera with square pixels."""

    position: Float[Array, "3"]
    axes: Float[Array, "3 3"]
    """Rows: where its x, y and z point in the world."""
    slope: Float[Array, ""]
    """Tangent of half the field of view."""
    yaw: Float[Array, ""]
    """To the left of straight ahead, in radians."""


class Lights(NamedTuple):
    """A lamp below the ceiling, and what comes in through the window."""

    position: Float[Array, "2 3"]
    color: Float[Array, "2 3"]
    """Of the light at distance d: this over 1 + d^2."""
    ambient: Float[Array, "3"]


class Materials(NamedTuple):
    """What M surfaces look like; drawn alike for all kinds of thing."""

    base: Float[Array, "M 3"]
    """Albedo, and
    other: that of the pattern's other colour."""
    other: Float[Array, "M 3"]
    pattern: Float[Array, "M 5"]
    """How much of each of `shade.PATTERNS`."""
    frequency: Float[Array, " M"]
    """Periods of the pattern per metre."""
    phase: Float[Array, "M 3"]
    gloss: Float[Array, " M"]
    """Strength of highlights."""
    sharpness: Float[Array, " M"]
    """Exponent of highlights."""


class Sensor(NamedTuple):
    """How light becomes a picture."""

    exposure: Float[Array, ""]
    """What the mean brightness is brought to."""
    balance: Float[Array, "3"]
    """Gain of each channel."""
    noise: Float[Array, ""]


class Scene(NamedTuple):
    """Everything about an image but its size."""

    room: Room
    window: Window
    camera: Camera
    lights: Lights
    solids: Solids
    materials: Materials
    """Of the solids, in their order, then of the planes."""
    sensor: Sensor


def between(low, high, u):
    """From uniform numbers in [0, 1) to uniform ones in [low, high)."""
    return low + (high - low) * u


# Least and most width, depth and height of each type of room.
_LEAST = np.array([[3.6, 4.0, 2.4], [1.7, 8.0, 2.3], [8.0, 9.0, 4.0], [4.0, 5.0, 2.8]], np.float32)
_MOST = np.array(
    [[6.0, 6.5, 3.0], [2.5, 14.0, 2.9], [13.0, 14.0, 6.0], [6.0, 8.0, 3.6]], np.float32
)
_UPRIGHT = np.array(
    [[0, 0, -1], [0, 0, 1], [-1, 0, 0], [1, 0, 0], [0, -1, 0], [0, 1, 0]], np.float32
)


def draw_room(u: Float[Array, "6"]) -> Room:
    """Each type is as likely as the others."""
    kind = (len(ROOM_TYPES) * u[0]).astype(jnp.int32)
    size = between(jnp.asarray(_LEAST)[kind], jnp.asarray(_MOST)[kind], u[1:4])
    half, depth, height = size[0] / 2, size[1], size[2]
    attic = kind == ATTIC
    knee = between(0.7, 1.3, u[4])
    ridge = jnp.where(attic, between(0.2, 0.8, u[5]), half)
    # A slope goes through (half, knee) and (ridge, height); without one, it is out of the way.
    rise, run = height - knee, jnp.where(attic, half - ridge, 1.0)
    across, up = jnp.stack([rise, run]) * (rise**2 + run**2) ** -0.5
    slope = jnp.where(attic, across * half + up * knee, 1e3)
    zero = jnp.zeros_like(up)
    slopes = jnp.stack([-across, zero, up, across, zero, up]).reshape(2, 3)
    return Room(
        kind=kind,
        normal=jnp.concatenate([jnp.asarray(_UPRIGHT), slopes]),
        offset=jnp.stack([zero, height, half, half, zero, depth, slope, slope]),
        size=size,
        ridge=ridge,
    )


def draw_camera(u: Float[Array, "7"], room: Room) -> Camera:
    """At eye height near the front wall, looking ahead and a little down."""
    aside = between(-0.22, 0.22, u[0])
    tallest = jnp.where(room.kind == ATTIC, 1.6, 1.9)
    position = jnp.stack(
        [aside * room.size[0], between(0.2, 0.8, u[1]), between(1.2, tallest, u[2])]
    )
    turn = jnp.where(room.kind == CORRIDOR, 10.0, 28.0)
    # Who stands to the right looks to the left, and so sees more of the room.
    yaw = jnp.deg2rad(between(-turn, turn, u[3]) + 25 * aside)
    pitch, roll = jnp.deg2rad(between(-22, -7, u[4])), jnp.deg2rad(between(-4, 4, u[5]))
    cy, sy, cp, sp = jnp.cos(yaw), jnp.sin(yaw), jnp.cos(pitch), jnp.sin(pitch)
    zero = jnp.zeros_like(cy)
    right, ahead = jnp.stack([cy, sy, zero]), jnp.stack([-sy * cp, cy * cp, sp])
    above = jnp.stack([sy * sp, -cy * sp, cp])
    x = jnp.cos(roll) * right + jnp.sin(roll) * above
    y = jnp.cos(roll) * above - jnp.sin(roll) * right
    slope = jnp.tan(jnp.deg2rad(between(56, 72, u[6])) / 2)
    return Camera(position, jnp.stack([x, y, -ahead]), slope, yaw)


def draw_window(u: Float[Array, "5"], room: Room, camera: Camera) -> Window:
    """To the left, to the right or ahead; in an attic ahead, where the wall is high."""
    half_room, depth, height = room.size[0] / 2, room.size[1], room.size[2]
    attic = room.kind == ATTIC
    side = jnp.where(attic, 1.0, u[0])
    wall = jnp.where(side < 1 / 3, LEFT, jnp.where(side < 2 / 3, RIGHT, BACK))
    ahead = wall == BACK
    wide = jnp.where(attic, room.ridge + 0.5, half_room)
    half = jnp.stack(
        [
            jnp.minimum(between(0.4, 0.9, u[1]), jnp.where(ahead, wide - 0.3, depth / 4)),
            between(0.4, 0.65, u[2]),
        ]
    )
    along = camera.position[1] + between(1.8, jnp.minimum(5.0, depth - 2.0), u[3])
    shift = jnp.maximum(wide - half[0] - 0.2, 0.0) * between(-1, 1, u[3])
    x = jnp.where(ahead, shift, jnp.where(wall == LEFT, -half_room, half_room))
    z = between(1.4, jnp.clip(height - 0.9, 1.45, 2.2), u[4])
    return Window(wall, jnp.stack([x, jnp.where(ahead, depth, along), z]), half)


def draw_lights(u: Float[Array, "7"], room: Room, camera: Camera, window: Window) -> Lights:
    """The lamp is the brighter one where most things are."""
    width, depth, height = room.size
    aside = jnp.where(room.kind == ATTIC, room.ridge + 0.3, jnp.minimum(0.38 * width, 3.0))
    lamp = jnp.stack(
        [
            between(-1, 1, u[0]) * aside,
            camera.position[1] + between(0.2, jnp.minimum(5.5, 0.85 * depth), u[1]),
            height - between(0.2, 0.6, u[2]),
        ]
    )
    one = jnp.ones_like(height)
    warm = jnp.stack([one, between(0.78, 1.0, u[3]), between(0.55, 0.95, u[3])])
    cold = jnp.stack([between(0.75, 1.0, u[4]), between(0.88, 1.0, u[4]), one])
    bright = 1 + lamp[2] ** 2  # as bright on the floor, however high it hangs
    return Lights(
        position=jnp.stack([lamp, window.center - 0.15 * room.normal[window.wall]]),
        color=bright * jnp.stack([warm, cold * between(0.15, 0.6, u[5])]),
        ambient=between(0.12, 0.3, u[6]) * (warm + cold) / 2,
    )


def draw_sensor(u: Float[Array, "5"]) -> Sensor:
    """Exposure, white balance and noise."""
    return Sensor(between(0.2, 0.45, u[0]), between(0.92, 1.08, u[1:4]), between(0.02, 0.08, u[4]))


def to_lamp(scene: Scene) -> Float[Array, "3"]:
    """Direction to the lamp from the floor `AHEAD` metres ahead, in the camera's frame."""
    camera = scene.camera
    ahead = jnp.stack([-jnp.sin(camera.yaw), jnp.cos(camera.yaw)])
    floor = jnp.append(camera.position[:2] + AHEAD * ahead, 0.0)
    away = scene.lights.position[0] - floor
    return (camera.axes * away).sum(-1) * (away**2).sum() ** -0.5


def in_window(window: Window, point: Float[Array, "3 R"], frame: float = 0.0) -> Bool[Array, " R"]:
    """Whether points of the window's wall are in the window, and not on its frame."""
    ahead = window.wall == BACK
    along = jnp.where(ahead, point[0] - window.center[0], point[1] - window.center[1])
    up = point[2] - window.center[2]
    return (jnp.abs(along) <= window.half[0] - frame) & (jnp.abs(up) <= window.half[1] - frame)
