"""Random objects in a room: a table, and solids on it and on the floor."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from mtljax.data.scenes.scene import ATTIC, PLANES, Camera, Materials, Room, lerp
from mtljax.data.scenes.solids import KINDS, Solids

MAX_PER_KIND = 2
"""Maximum number of objects of each kind."""
OBJECTS = MAX_PER_KIND * len(KINDS)
"""Maximum number of objects."""
KIND_OF_OBJECT = np.repeat(np.arange(len(KINDS)), MAX_PER_KIND)
"""Index into `KINDS` of each object."""
TABLE_PARTS = 5
"""A top and four legs: boxes, the last of the solids."""
SOLIDS = OBJECTS + TABLE_PARTS
"""Maximum number of solids."""
COUNTS = tuple(MAX_PER_KIND + TABLE_PARTS * (kind == KINDS[-1]) for kind in KINDS)
"""Number of solids of each kind."""
KIND_OF_SOLID = np.append(KIND_OF_OBJECT, np.full(TABLE_PARTS, len(KINDS) - 1))
"""Index into `KINDS` of each solid."""
SURFACES = SOLIDS + PLANES
"""Number of surfaces: those of solids, then of planes."""
PATTERNS = 5
"""Number of patterns of a surface."""
_PLACEMENT_ORDER = np.arange(OBJECTS).reshape(len(KINDS), MAX_PER_KIND)[::-1].T.ravel()
"""Order in which objects are placed: one of each kind, then the second of each."""
_CANDIDATES = 12
"""Number of candidate positions per object."""
_OBJECT, _LYING, _ON_TABLE, _TABLE = 0.62, 0.4, 0.4, 0.75
"""Probability of: each object; a lying cylinder or cone; an object on the table; a table."""


class Table(NamedTuple):
    """Table top on four legs."""

    exists: Bool[Array, ""]
    """True if the room has a table."""
    center: Float[Array, "2"]
    """x and y of the center, in meters."""
    yaw: Float[Array, ""]
    """Rotation around the vertical axis, in radians."""
    half: Float[Array, "2"]
    """Half the length and the width."""
    height: Float[Array, ""]
    """Height of the top's upper side, in meters."""

    @property
    def turn(self) -> Float[Array, "2 2"]:
        """Rotation from the table's frame to the world."""
        cos, sin = jnp.cos(self.yaw), jnp.sin(self.yaw)
        return jnp.stack([jnp.stack([cos, -sin]), jnp.stack([sin, cos])])


class Shapes(NamedTuple):
    """Shapes and orientations of objects, without positions."""

    size: Float[Array, "N 3"]
    """Length of the unit shape's 1 along each axis, in meters."""
    axes: Float[Array, "N 3 3"]
    """Rows: directions of the unit shape's x, y and z in the world."""
    rise: Float[Array, " N"]
    """Height of the center above the supporting surface."""
    reach: Float[Array, " N"]
    """Radius of the vertical bounding cylinder around the center."""


def draw_table(u: Float[Array, "8"], room: Room, camera: Camera) -> Table:
    """Returns a table in view of the camera; it exists, at random, only if it fits."""
    half = jnp.stack([lerp(0.5, 0.85, u[0]), lerp(0.32, 0.5, u[1])])
    center = points_in_view(camera, u[2:4], 2.2, 4.2)
    fits = wall_distance(room, center) > 0.8 * _length(half)
    quarter = jnp.where(u[4] < 0.5, 0.0, np.pi / 2)
    yaw, height = quarter + lerp(-0.5, 0.5, u[6]), lerp(0.5, 0.8, u[7])
    return Table(fits & (u[5] < _TABLE), center, yaw, half, height)


def draw_shapes(u: Float[Array, "N 6"]) -> Shapes:
    """Returns the shape of each object, sized for the floor; cylinders and cones may lie."""
    is_sphere, is_cylinder, is_cone, is_box = (i == KIND_OF_OBJECT for i in range(len(KINDS)))
    scale = lerp(0.28, 0.6, u[:, 0])
    thick, long = lerp(0.5, 0.95, u[:, 1]), lerp(0.5, 1.1, u[:, 2])
    x = scale * jnp.where(is_sphere, 0.85, thick)
    y = jnp.where(is_box, scale * lerp(0.5, 0.95, u[:, 3]), x)
    z = jnp.where(is_sphere, x, scale * long)
    lying = (u[:, 4] < _LYING) & (is_cylinder | is_cone)
    # A cone is on its side, its axis tilted by the angle between the two.
    slant_cos, slant_sin = jnp.stack([2 * z, x]) * (4 * z**2 + x**2) ** -0.5
    cos = jnp.where(lying, jnp.where(is_cone, -slant_sin, 0.0), 1.0)
    sin = jnp.where(lying, jnp.where(is_cone, slant_cos, 1.0), 0.0)
    flat = jnp.where(is_cone, z * slant_sin, x)
    upright = jnp.where(is_box, _length(jnp.stack([x, y])), x)
    return Shapes(
        size=jnp.stack([x, y, z], -1),
        axes=_tilted_axes(cos, sin, 2 * np.pi * u[:, 5]),
        rise=jnp.where(lying, flat, z),
        reach=jnp.where(lying, _length(jnp.stack([x, z])), upright),
    )


def _tilted_axes(
    cos: Float[Array, " N"], sin: Float[Array, " N"], turn: Float[Array, " N"]
) -> Float[Array, "N 3 3"]:
    """Returns axes whose z is tilted from the vertical by an angle, in the direction `turn`."""
    c, s, zero = jnp.cos(turn), jnp.sin(turn), jnp.zeros_like(turn)
    rows = [-s, c, zero, -cos * c, -cos * s, sin, sin * c, sin * s, cos]
    return jnp.stack(rows, -1).reshape(-1, 3, 3)


def _length(x: Float[Array, "2 ..."]) -> Float[Array, "..."]:
    return jnp.sqrt(x[0] ** 2 + x[1] ** 2)


def points_in_view(
    camera: Camera, u: Float[Array, "2 ..."], near: float, far: float
) -> Float[Array, "2 ..."]:
    """Returns points (x, y) on the floor between two distances, within the camera's angle."""
    angle = camera.yaw + lerp(-0.8, 0.8, u[1]) * jnp.arctan(camera.slope)
    start = camera.position[:2].reshape(2, *(1,) * angle.ndim)
    return start + lerp(near, far, u[0]) * jnp.stack([-jnp.sin(angle), jnp.cos(angle)])


def wall_distance(room: Room, point: Float[Array, "2 ..."]) -> Float[Array, "..."]:
    """Returns the distance from (x, y) to the nearest wall or to the low part of an attic."""
    side = room.size[0] / 2 - jnp.where(room.kind == ATTIC, 0.2, 0.0)
    return jnp.minimum(side - jnp.abs(point[0]), jnp.minimum(point[1], room.size[1] - point[1]))


def place_objects(
    u: Float[Array, "N K"], room: Room, camera: Camera, table: Table, shapes: Shapes
) -> Solids:
    """Places the objects without overlap on the floor and, scaled down, on the table.

    Objects are placed one after the other. Each takes, of a few random candidates, the position
    with the most free space, and does not exist if that is too small.
    """
    requested, on_table = u[:, 0] < _OBJECT, table.exists & (u[:, 1] < _ON_TABLE)
    scale = jnp.where(on_table, lerp(0.4, 0.55, u[:, 2]), 1.0)
    reach = shapes.reach * scale
    spare = jnp.maximum(table.half - reach[:, None], 0.0)
    candidates = u[:, 3:].reshape(-1, 2, _CANDIDATES)
    on_floor = points_in_view(camera, jnp.moveaxis(candidates, 1, 0), 1.7, 4.6)
    on_top = jnp.moveaxis((2 * candidates - 1) * spare[..., None], 1, 0)
    turned = jnp.stack([row[0] * on_top[0] + row[1] * on_top[1] for row in table.turn])
    on_top = table.center[:, None, None] + turned
    off_table = _length(on_floor - table.center[:, None, None]) - _length(table.half)
    free = jnp.minimum(wall_distance(room, on_floor), jnp.where(table.exists, off_table, jnp.inf))
    candidates = jnp.where(on_table[:, None], on_top, on_floor)
    free = jnp.where(on_table[:, None], jnp.where(spare.min(-1) > 0, jnp.inf, 0.0)[:, None], free)

    def place(placed: tuple[Array, Array], item: tuple[Array, ...]) -> tuple[tuple, None]:
        position, exists = placed
        index, points, space, is_requested, level, radius = item
        gap = _length(points[:, None] - position[:, :, None]) - reach[:, None]
        gap = jnp.where((exists & (on_table == level))[:, None], gap, jnp.inf).min(0)
        space = jnp.minimum(space, gap)
        best = space.argmax()
        fits = is_requested & (space[best] > radius)
        return (position.at[:, index].set(points[:, best]), exists.at[index].set(fits)), None

    empty = jnp.zeros((2, OBJECTS)), jnp.zeros(OBJECTS, bool)
    points = jnp.moveaxis(candidates, 1, 0)
    items = jnp.arange(OBJECTS), points, free, requested, on_table, reach
    items = jax.tree.map(lambda x: x[_PLACEMENT_ORDER], items)
    (position, exists), _ = jax.lax.scan(place, empty, items)
    z = shapes.rise * scale + jnp.where(on_table, table.height, 0.0)
    center = jnp.concatenate([position, z[None]]).T
    return Solids(center, shapes.axes, shapes.size * scale[:, None], exists)


_CORNERS = np.array([[0, 0], [1, 1], [1, -1], [-1, 1], [-1, -1]], np.float32)
_THICK, _LEG, _INSET = 0.03, 0.035, 0.06
"""Half the thickness of a table's top and of its legs; distance of the legs from the edge."""


def table_solids(table: Table) -> Solids:
    """Returns the table top and the legs."""
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
        exists=jnp.broadcast_to(table.exists, (TABLE_PARTS,)),
    )


_OF_TABLE_AND_ROOM = [*[0] * TABLE_PARTS, 1, 2, 3, 3, 3, 3, 2, 2]
_MATERIAL_OF_SURFACE = np.append(np.arange(OBJECTS), OBJECTS + np.array(_OF_TABLE_AND_ROOM))
"""Material of each surface: one per object, one each for the table, the floor, the walls, and the
ceiling with the slopes."""
MATERIALS = int(_MATERIAL_OF_SURFACE.max()) + 1
"""Number of materials of a scene."""


def draw_materials(u: Float[Array, "M 15"]) -> Materials:
    """Returns the material of every solid and plane, equally distributed for all objects."""
    is_room = np.arange(MATERIALS) > OBJECTS
    base, other = _color(u[:, :3], is_room), _color(u[:, 3:6], is_room)
    darker = base * lerp(0.4, 0.8, u[:, 4:5])
    which = (u[:, 7:8] * (PATTERNS + 2)).astype(jnp.int32)  # two in seven are plain
    strength = lerp(0.5, 1.0, u[:, 8:9])
    materials = Materials(
        base=base,
        other=jnp.where(u[:, 6:7] < 0.5, darker, other),
        pattern=jnp.where(which == np.arange(PATTERNS), strength, 0.0),
        frequency=jnp.where(is_room, lerp(0.6, 2.5, u[:, 9]), lerp(1.5, 5.0, u[:, 9])),
        phase=u[:, 10:13],
        gloss=jnp.where(is_room, 0.15, 0.7) * jnp.maximum(2 * u[:, 13] - 1, 0.0),
        sharpness=jnp.exp2(lerp(3.0, 6.5, u[:, 14])),
    )
    return jax.tree.map(lambda x: x[_MATERIAL_OF_SURFACE], materials)


def _color(u: Float[Array, "M 3"], pale: np.ndarray) -> Float[Array, "M 3"]:
    """Returns albedo from hue, saturation and value; walls and floors are paler than objects."""
    hue, saturation, value = u[:, :1], u[:, 1:2], u[:, 2:]
    pale = pale[:, None]
    wheel = jnp.abs((hue + np.array([0, 2 / 3, 1 / 3], np.float32)) % 1 * 6 - 3) - 1
    saturation = jnp.where(pale, 0.4 * saturation, lerp(0.2, 0.95, saturation))
    value = jnp.where(pale, lerp(0.35, 0.9, value), lerp(0.2, 0.95, value))
    return value * (1 - saturation * (1 - jnp.clip(wheel, 0, 1)))
