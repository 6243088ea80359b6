"""Things put into a room at random: a table, and solids on it and on the floor."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from mtljax.data.scenes.solids import KINDS, Solids
from mtljax.data.scenes.world import ATTIC, PLANES, Camera, Materials, Room, between

EACH = 2
"""The most objects of each kind."""
OBJECTS = EACH * len(KINDS)
KIND_OF_OBJECT = np.repeat(np.arange(len(KINDS)), EACH)
TABLE_PARTS = 5
"""A top and four legs: boxes, the last solids of all."""
SOLIDS = OBJECTS + TABLE_PARTS
COUNTS = tuple(EACH + TABLE_PARTS * (kind == KINDS[-1]) for kind in KINDS)
"""Solids of each kind."""
KIND_OF_SOLID = np.append(KIND_OF_OBJECT, np.full(TABLE_PARTS, len(KINDS) - 1))
SURFACES = SOLIDS + PLANES
PATTERNS = 5
_TURNS = np.arange(OBJECTS).reshape(len(KINDS), EACH)[::-1].T.ravel()
"""Objects in the order in which they take their places: one of each kind, then the others."""
_SPOTS = 12
"""Places that are tried for an object."""
_WANTED, _LYING, _ON_TABLE, _TABLE = 0.62, 0.4, 0.4, 0.75
"""How likely: each object; a cylinder or cone to lie; an object to be on the table; a table."""


class Table(NamedTuple):
    """A top on four legs."""

    there: Bool[Array, ""]
    center: Float[Array, "2"]
    yaw: Float[Array, ""]
    half: Float[Array, "2"]
    """Half its length and width."""
    height: Float[Array, ""]

    @property
    def turn(self) -> Float[Array, "2 2"]:
        """From its own directions to the world's."""
        cos, sin = jnp.cos(self.yaw), jnp.sin(self.yaw)
        return jnp.stack([jnp.stack([cos, -sin]), jnp.stack([sin, cos])])


class Shapes(NamedTuple):
    """Objects before they have a place."""

    size: Float[Array, "N 3"]
    axes: Float[Array, "N 3 3"]
    rise: Float[Array, " N"]
    """Height of the middle above what the object stands on."""
    reach: Float[Array, " N"]
    """Radius of the upright cylinder around the middle that holds it."""


def draw_table(u: Float[Array, "8"], room: Room, camera: Camera) -> Table:
    """In view, if it fits there."""
    half = jnp.stack([between(0.5, 0.85, u[0]), between(0.32, 0.5, u[1])])
    center = in_view(camera, u[2:4], 2.2, 4.2)
    fits = to_walls(room, center) > 0.8 * _length(half)
    quarter = jnp.where(u[4] < 0.5, 0.0, np.pi / 2)
    return Table(
        there=fits & (u[5] < _TABLE),
        center=center,
        yaw=quarter + between(-0.5, 0.5, u[6]),
        half=half,
        height=between(0.5, 0.8, u[7]),
    )


def draw_shapes(u: Float[Array, "N 6"]) -> Shapes:
    """One for each of `KIND_OF_OBJECT`, large enough for the floor; cylinders and cones may lie."""
    is_sphere, is_cylinder, is_cone, is_box = (i == KIND_OF_OBJECT for i in range(len(KINDS)))
    scale = between(0.28, 0.6, u[:, 0])
    thick, long = between(0.5, 0.95, u[:, 1]), between(0.5, 1.1, u[:, 2])
    x = scale * jnp.where(is_sphere, 0.85, thick)
    y = jnp.where(is_box, scale * between(0.5, 0.95, u[:, 3]), x)
    z = jnp.where(is_sphere, x, scale * long)
    lying = (u[:, 4] < _LYING) & (is_cylinder | is_cone)
    # A cone lies on its side, its axis tilted by the angle between the two.
    slant_cos, slant_sin = jnp.stack([2 * z, x]) * (4 * z**2 + x**2) ** -0.5
    cos = jnp.where(lying, jnp.where(is_cone, -slant_sin, 0.0), 1.0)
    sin = jnp.where(lying, jnp.where(is_cone, slant_cos, 1.0), 0.0)
    flat = jnp.where(is_cone, z * slant_sin, x)
    upright = jnp.where(is_box, _length(jnp.stack([x, y])), x)
    return Shapes(
        size=jnp.stack([x, y, z], -1),
        axes=_tilted(cos, sin, 2 * np.pi * u[:, 5]),
        rise=jnp.where(lying, flat, z),
        reach=jnp.where(lying, _length(jnp.stack([x, z])), upright),
    )


def _tilted(cos: Float[Array, " N"], sin: Float[Array, " N"], turn: Float[Array, " N"]):
    """Axes [N, 3, 3] whose z is off straight up by an angle, towards the direction `turn`."""
    c, s, zero = jnp.cos(turn), jnp.sin(turn), jnp.zeros_like(turn)
    rows = [-s, c, zero, -cos * c, -cos * s, sin, sin * c, sin * s, cos]
    return jnp.stack(rows, -1).reshape(-1, 3, 3)


def _length(x: Float[Array, "2 ..."]) -> Float[Array, "..."]:
    return jnp.sqrt(x[0] ** 2 + x[1] ** 2)


def in_view(camera: Camera, u: Float[Array, "2 ..."], near: float, far: float):
    """Places (x, y) [2, ...] on the floor between two distances, within the camera's angle."""
    angle = camera.yaw + between(-0.8, 0.8, u[1]) * jnp.arctan(camera.slope)
    start = camera.position[:2].reshape(2, *(1,) * angle.ndim)
    return start + between(near, far, u[0]) * jnp.stack([-jnp.sin(angle), jnp.cos(angle)])


def to_walls(room: Room, place: Float[Array, "2 ..."]) -> Float[Array, "..."]:
    """Distance from (x, y) to the nearest wall, or to where an attic gets low."""
    side = room.size[0] / 2 - jnp.where(room.kind == ATTIC, 0.2, 0.0)
    return jnp.minimum(side - jnp.abs(place[0]), jnp.minimum(place[1], room.size[1] - place[1]))


def put_down(
    u: Float[Array, "N K"], room: Room, camera: Camera, table: Table, shapes: Shapes
) -> Solids:
    """The objects, on the floor and, smaller, on the table, none inside of another.

    One after the other takes, of a few random places, the one with most space around it, and is
    left out if that is too little.
    """
    wanted, high = u[:, 0] < _WANTED, table.there & (u[:, 1] < _ON_TABLE)
    scale = jnp.where(high, between(0.4, 0.55, u[:, 2]), 1.0)
    reach = shapes.reach * scale
    spare = jnp.maximum(table.half - reach[:, None], 0.0)
    spots = u[:, 3:].reshape(-1, 2, _SPOTS)
    on_floor = in_view(camera, jnp.moveaxis(spots, 1, 0), 1.7, 4.6)
    on_top = jnp.moveaxis((2 * spots - 1) * spare[..., None], 1, 0)
    on_top = table.center[:, None, None] + jnp.stack(
        [row[0] * on_top[0] + row[1] * on_top[1] for row in table.turn]
    )
    off_table = _length(on_floor - table.center[:, None, None]) - _length(table.half)
    free = jnp.minimum(to_walls(room, on_floor), jnp.where(table.there, off_table, jnp.inf))
    spots = jnp.where(high[:, None], on_top, on_floor)
    free = jnp.where(high[:, None], jnp.where(spare.min(-1) > 0, jnp.inf, 0.0)[:, None], free)

    def put(placed, this):
        place, there = placed
        index, spot, space, wanted, level, radius = this
        others = _length(spot[:, None] - place[:, :, None]) - reach[:, None]
        others = jnp.where((there & (high == level))[:, None], others, jnp.inf).min(0)
        space = jnp.minimum(space, others)
        best = space.argmax()
        fits = wanted & (space[best] > radius)
        return (place.at[:, index].set(spot[:, best]), there.at[index].set(fits)), None

    nothing = jnp.zeros((2, OBJECTS)), jnp.zeros(OBJECTS, bool)
    objects = jnp.arange(OBJECTS), jnp.moveaxis(spots, 1, 0), free, wanted, high, reach
    in_turn = jax.tree.map(lambda x: x[_TURNS], objects)
    (place, there), _ = jax.lax.scan(put, nothing, in_turn)
    z = shapes.rise * scale + jnp.where(high, table.height, 0.0)
    return Solids(
        center=jnp.concatenate([place, z[None]]).T,
        axes=shapes.axes,
        size=shapes.size * scale[:, None],
        there=there,
    )


_CORNERS = np.array([[0, 0], [1, 1], [1, -1], [-1, 1], [-1, -1]], np.float32)
_THICK, _LEG, _INSET = 0.03, 0.035, 0.06
"""Half the thickness of a table's top and legs; how far in the legs are."""


def table_solids(table: Table) -> Solids:
    """The top, then the legs."""
    is_top = np.arange(TABLE_PARTS) == 0
    corner = jnp.asarray(_CORNERS) * (table.half - _INSET)
    turned = (table.turn * corner[:, None]).sum(-1)
    under = table.height / 2 - _THICK
    z = jnp.where(is_top, table.height - _THICK, under)
    half = jnp.stack([*table.half, jnp.full_like(under, _THICK)])
    leg = jnp.stack([*jnp.full((2,), _LEG), under])
    axes = jnp.eye(3).at[:2, :2].set(table.turn.T)
    return Solids(
        center=jnp.concatenate([table.center + turned, z[:, None]], -1),
        axes=jnp.broadcast_to(axes, (TABLE_PARTS, 3, 3)),
        size=jnp.where(is_top[:, None], half, leg),
        there=jnp.broadcast_to(table.there, (TABLE_PARTS,)),
    )


_LOOKS = np.concatenate(
    [
        np.arange(OBJECTS),
        np.full(TABLE_PARTS, OBJECTS),
        OBJECTS + np.array([1, 2, 3, 3, 3, 3, 2, 2]),
    ]
)
"""Whose material each surface has: of the table's parts one, of the walls one, of the ceiling and
the slopes one."""
LOOKS = int(_LOOKS.max()) + 1
"""How many materials a scene has."""


def draw_materials(u: Float[Array, "M 15"]) -> Materials:
    """Of every solid and plane, by the same chances for all objects."""
    is_room = np.arange(LOOKS) > OBJECTS
    base, other = _color(u[:, :3], is_room), _color(u[:, 3:6], is_room)
    darker = base * between(0.4, 0.8, u[:, 4:5])
    which = (u[:, 7:8] * (PATTERNS + 2)).astype(jnp.int32)  # two in seven are plain
    strength = between(0.5, 1.0, u[:, 8:9])
    looks = Materials(
        base=base,
        other=jnp.where(u[:, 6:7] < 0.5, darker, other),
        pattern=jnp.where(which == np.arange(PATTERNS), strength, 0.0),
        frequency=jnp.where(is_room, between(0.6, 2.5, u[:, 9]), between(1.5, 5.0, u[:, 9])),
        phase=u[:, 10:13],
        gloss=jnp.where(is_room, 0.15, 0.7) * jnp.maximum(2 * u[:, 13] - 1, 0.0),
        sharpness=jnp.exp2(between(3.0, 6.5, u[:, 14])),
    )
    return jax.tree.map(lambda x: x[_LOOKS], looks)


def _color(u: Float[Array, "M 3"], pale: np.ndarray) -> Float[Array, "M 3"]:
    """Albedo from hue, saturation and value; walls and floors paler than things."""
    hue, saturation, value = u[:, :1], u[:, 1:2], u[:, 2:]
    pale = pale[:, None]
    wheel = jnp.abs((hue + np.array([0, 2 / 3, 1 / 3], np.float32)) % 1 * 6 - 3) - 1
    saturation = jnp.where(pale, 0.4 * saturation, between(0.2, 0.95, saturation))
    value = jnp.where(pale, between(0.35, 0.9, value), between(0.2, 0.95, value))
    return value * (1 - saturation * (1 - jnp.clip(wheel, 0, 1)))
