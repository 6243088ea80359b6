"""Where rays meet solids: spheres, cylinders, cones and boxes, each a unit shape seen askew.

A solid is the image of a unit shape under an affine map, so a ray is taken into the unit shape's
space, where the formulas are short, and the distance along it is the same number in both. All unit
shapes are convex: a ray is inside of each from one distance to another.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

KINDS = ("sphere", "cylinder", "cone", "box")
"""The unit shapes: radius 1 around 0; radius 1 around z, |z| <= 1; the same, but tapering to a tip
at z = 1; |x|, |y|, |z| <= 1."""
FACES = 6
"""The most that a shape has; see `face_and_normal`."""
NEAREST = 1e-3
"""Solids that begin nearer along a ray are not seen, in lengths of its direction."""
_TINY = 1e-9


class Solids(NamedTuple):
    """S solids, those of the first of `KINDS` first, and so on."""

    center: Float[Array, "S 3"]
    axes: Float[Array, "S 3 3"]
    """Rows: where the unit shape's x, y and z point, of length 1."""
    size: Float[Array, "S 3"]
    """How far the unit shape's 1 is, along each of them."""
    there: Bool[Array, " S"]
    """Which solids exist."""

    @property
    def to_unit(self) -> Float[Array, "S 3 3"]:
        """The linear part of the map to the unit shape's space."""
        return self.axes / self.size[..., None]


def dot(a: Float[Array, "3 ..."], b: Float[Array, "3 ..."]) -> Float[Array, "..."]:
    """Along the first axis, term by term: sums over an axis of 3 are slow on CPUs."""
    return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]


def unit(vector: Float[Array, "3 R"]) -> Float[Array, "3 R"]:
    """The same direction with length 1."""
    return vector * jax.lax.rsqrt(dot(vector, vector))


def each_dot(rows: Float[Array, "S 3"], vectors: Float[Array, "3 R"]) -> Float[Array, "S R"]:
    """Each row times each vector."""
    return dot(rows.T[..., None], vectors[:, None])


def distances(
    solids: Solids,
    counts: tuple[int, ...],
    origin: Float[Array, "3"],
    directions: Float[Array, "3 R"],
) -> Float[Array, "S R"]:
    """How far along each ray each solid begins, in lengths of `directions`; infinite if nowhere.

    Args:
      solids: The solids.
      counts: How many there are of each of `KINDS`.
      origin: Where all rays start; outside of all solids.
      directions: Of the rays, of any length.
    """
    to_unit = jnp.moveaxis(solids.to_unit, 1, 0)
    start = jnp.stack([dot(rows.T, (origin - solids.center).T) for rows in to_unit])
    found, first = [], 0
    for kind, count in zip(KINDS, counts, strict=True):
        part = slice(first, first + count)
        along = [each_dot(rows[part], directions) for rows in to_unit]
        enter, leave = _INSIDE[kind](start[:, part, None], along)
        seen = (enter < leave) & (enter > NEAREST) & solids.there[part, None]
        found.append(jnp.where(seen, enter, jnp.inf))
        first += count
    return jnp.concatenate(found)


Interval = tuple[Float[Array, "S R"], Float[Array, "S R"]]
"""Distances where rays enter and leave; not the smaller one first where they miss."""


def _sphere(o, d) -> Interval:
    return _between_roots(dot(d, d), dot(o, d), dot(o, o) - 1)


def _cylinder(o, d) -> Interval:
    a, b = d[0] ** 2 + d[1] ** 2, o[0] * d[0] + o[1] * d[1]
    return _both(_between_roots(a, b, o[0] ** 2 + o[1] ** 2 - 1), _slab(o[2], d[2]))


def _cone(o, d) -> Interval:
    """x^2 + y^2 <= ((1 - z) / 2)^2 is a double cone; the slab cuts off its half above z = 1."""
    height = (1 - o[2]) / 2
    a = d[0] ** 2 + d[1] ** 2 - d[2] ** 2 / 4
    b = o[0] * d[0] + o[1] * d[1] + height * d[2] / 2
    c = o[0] ** 2 + o[1] ** 2 - height**2
    # A ray steeper than the side is in the lower half up to the first root, or from the last on.
    steep, down = a < 0, d[2] < 0
    first, last = _between_roots(jnp.abs(a), jnp.where(steep, -b, b), jnp.where(steep, -c, c))
    some = first <= last
    enter = jnp.where(steep, jnp.where(down & some, last, -jnp.inf), first)
    leave = jnp.where(steep, jnp.where(down | ~some, jnp.inf, first), last)
    return _both((enter, leave), _slab(o[2], d[2]))


def _box(o, d) -> Interval:
    return _both(_both(_slab(o[0], d[0]), _slab(o[1], d[1])), _slab(o[2], d[2]))


_INSIDE = {"sphere": _sphere, "cylinder": _cylinder, "cone": _cone, "box": _box}
"""Name -> function of origins [3, S, 1] and directions, three of [S, R], in the unit space."""


def _slab(o, d) -> Interval:
    """Where |o + t d| <= 1."""
    inverse = 1 / jnp.where(jnp.abs(d) < _TINY, _TINY, d)
    middle, half = -o * inverse, jnp.abs(inverse)
    return middle - half, middle + half


def _between_roots(a, b, c) -> Interval:
    """Where a t^2 + 2 b t + c <= 0, for a >= 0."""
    square = b**2 - a * c
    root = jnp.sqrt(jnp.maximum(square, 0.0))
    # One root by a sum of two numbers of the same sign, the other by the product of both: no
    # digits cancel.
    total = -b - jnp.where(b < 0, -root, root)
    one = total / jnp.maximum(a, _TINY)
    other = c / jnp.where(jnp.abs(total) < _TINY, _TINY, total)
    some = square > 0
    return (
        jnp.where(some, jnp.minimum(one, other), jnp.inf),
        jnp.where(some, jnp.maximum(one, other), -jnp.inf),
    )


def _both(a: Interval, b: Interval) -> Interval:
    return jnp.maximum(a[0], b[0]), jnp.minimum(a[1], b[1])


def face_and_normal(
    kind: Int[Array, " R"], at: Float[Array, "3 R"]
) -> tuple[Int[Array, " R"], Float[Array, "3 R"]]:
    """(face, outward normal) at points of the surfaces, both in the unit shapes' space.

    Round sides are face 0, the top of a cylinder 1, its bottom and that of a cone 2; a box's -x,
    +x, -y, ... are 0 to 5. Normals are of any length, and go back to the world by the transpose of
    `to_unit`.

    Args:
      kind: Of the shape that each point is on, as index into `KINDS`.
      at: The points.
    """
    x, y, z = at
    radial = jnp.sqrt(x**2 + y**2)
    is_sphere, is_cylinder, is_cone, is_box = (kind == i for i in range(len(KINDS)))
    flat = (is_cylinder & (jnp.abs(z) > radial)) | (is_cone & (-1 - z > radial - (1 - z) / 2))

    on_x = is_box & (jnp.abs(x) >= jnp.maximum(jnp.abs(y), jnp.abs(z)))
    on_y = is_box & ~on_x & (jnp.abs(y) >= jnp.abs(z))
    on_z = is_box & ~on_x & ~on_y
    outward = jnp.where(on_x, x, jnp.where(on_y, y, z)) > 0
    of_box = jnp.where(on_x, 0, jnp.where(on_y, 2, 4)) + outward

    face = jnp.where(is_box, of_box, jnp.where(flat, jnp.where(z > 0, 1, 2), 0))
    round_z = jnp.where(is_sphere, z, jnp.where(is_cone, (1 - z) / 4, 0.0))
    normal = jnp.stack(
        [
            jnp.where(flat | on_y | on_z, 0.0, x),
            jnp.where(flat | on_x | on_z, 0.0, y),
            jnp.where(flat | on_z, z, jnp.where(is_box, 0.0, round_z)),
        ]
    )
    return face, normal
