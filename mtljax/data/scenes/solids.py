"""Intersection of rays with solids: spheres, cylinders, cones and boxes.

A solid is the image of a unit shape under an affine map. Rays are transformed to the space of the
unit shape, where the formulas are short; the distance along a ray is the same in both spaces. All
unit shapes are convex: a ray is inside each of them on one interval of distances.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

KINDS = ("sphere", "cylinder", "cone", "box")
"""Unit shapes: radius 1 around 0; radius 1 around the z axis, |z| <= 1; the same, tapering to a tip
at z = 1; |x|, |y|, |z| <= 1."""
FACES = 6
"""Maximum number of faces of a shape; see `face_and_normal`."""
NEAREST = 1e-3
"""Distance below which solids are invisible, in lengths of the ray's direction."""
_TINY = 1e-9

Vectors = Float[Array, "3 ..."] | Sequence[Float[Array, "..."]]
"""x, y and z components."""
Interval = tuple[Float[Array, "S R"], Float[Array, "S R"]]
"""Distances at which rays enter and leave; enter > leave where they miss."""


class Solids(NamedTuple):
    """S solids, in the order of `KINDS`."""

    center: Float[Array, "S 3"]
    """Center in the world, in meters."""
    axes: Float[Array, "S 3 3"]
    """Rows: directions of the unit shape's x, y and z, of length 1."""
    size: Float[Array, "S 3"]
    """Length of the unit shape's 1 along each axis."""
    exists: Bool[Array, " S"]
    """False for solids that are not in the scene."""

    @property
    def to_unit(self) -> Float[Array, "S 3 3"]:
        """Linear part of the map to the unit shape's space."""
        return self.axes / self.size[..., None]


def dot(a: Vectors, b: Vectors) -> Float[Array, "..."]:
    """Dot product along the first axis, term by term: sums over an axis of 3 are slow on CPUs."""
    return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]


def normalize(vector: Float[Array, "3 R"]) -> Float[Array, "3 R"]:
    """Returns the same direction with length 1."""
    return vector * jax.lax.rsqrt(dot(vector, vector))


def pairwise_dot(rows: Float[Array, "S 3"], vectors: Float[Array, "3 R"]) -> Float[Array, "S R"]:
    """Dot product of each row and each vector."""
    return dot(rows.T[..., None], vectors[:, None])


def distances(
    solids: Solids, counts: tuple[int, ...], origin: Float[Array, "3"], rays: Float[Array, "3 R"]
) -> Float[Array, "S R"]:
    """Returns the distance to each solid along each ray, in lengths of the directions `rays`.

    Distances are infinite where a ray misses. Rays start at `origin`, which is outside all solids;
    `counts` is the number of solids of each of `KINDS`.
    """
    to_unit = jnp.moveaxis(solids.to_unit, 1, 0)
    start = jnp.stack([dot(rows.T, (origin - solids.center).T) for rows in to_unit])
    per_kind, first = [], 0
    for interval, count in zip(_INTERVALS, counts, strict=True):
        part = slice(first, first + count)
        along = [pairwise_dot(rows[part], rays) for rows in to_unit]
        enter, leave = interval(start[:, part, None], along)
        visible = (enter < leave) & (enter > NEAREST) & solids.exists[part, None]
        per_kind.append(jnp.where(visible, enter, jnp.inf))
        first += count
    return jnp.concatenate(per_kind)


def _sphere(o: Vectors, d: Vectors) -> Interval:
    return _between_roots(dot(d, d), dot(o, d), dot(o, o) - 1)


def _cylinder(o: Vectors, d: Vectors) -> Interval:
    a, b = d[0] ** 2 + d[1] ** 2, o[0] * d[0] + o[1] * d[1]
    return _both(_between_roots(a, b, o[0] ** 2 + o[1] ** 2 - 1), _slab(o[2], d[2]))


def _cone(o: Vectors, d: Vectors) -> Interval:
    """x^2 + y^2 <= ((1 - z) / 2)^2 is a double cone; the slab cuts off its half above z = 1."""
    height = (1 - o[2]) / 2
    a = d[0] ** 2 + d[1] ** 2 - d[2] ** 2 / 4
    b = o[0] * d[0] + o[1] * d[1] + height * d[2] / 2
    c = o[0] ** 2 + o[1] ** 2 - height**2
    # A ray steeper than the side is in the lower half up to the first root, or from the last on.
    steep, down = a < 0, d[2] < 0
    first, last = _between_roots(jnp.abs(a), jnp.where(steep, -b, b), jnp.where(steep, -c, c))
    has_roots = first <= last
    enter = jnp.where(steep, jnp.where(down & has_roots, last, -jnp.inf), first)
    leave = jnp.where(steep, jnp.where(down | ~has_roots, jnp.inf, first), last)
    return _both((enter, leave), _slab(o[2], d[2]))


def _box(o: Vectors, d: Vectors) -> Interval:
    return _both(_both(_slab(o[0], d[0]), _slab(o[1], d[1])), _slab(o[2], d[2]))


_INTERVALS: tuple[Callable[[Vectors, Vectors], Interval], ...] = (_sphere, _cylinder, _cone, _box)
"""Functions of origins [3, S, 1] and directions, three of [S, R], in the unit space, by `KINDS`."""


def _slab(o: Float[Array, "S 1"], d: Float[Array, "S R"]) -> Interval:
    """Interval where |o + t d| <= 1."""
    inverse = 1 / jnp.where(jnp.abs(d) < _TINY, _TINY, d)
    middle, half = -o * inverse, jnp.abs(inverse)
    return middle - half, middle + half


def _between_roots(
    a: Float[Array, "S R"], b: Float[Array, "S R"], c: Float[Array, "S _"]
) -> Interval:
    """Interval where a t^2 + 2 b t + c <= 0, for a >= 0."""
    square = b**2 - a * c
    root = jnp.sqrt(jnp.maximum(square, 0.0))
    # One root by a sum of numbers of one sign, the other by the product of both: no digits cancel.
    total = -b - jnp.where(b < 0, -root, root)
    one = total / jnp.maximum(a, _TINY)
    other = c / jnp.where(jnp.abs(total) < _TINY, _TINY, total)
    first = jnp.where(square > 0, jnp.minimum(one, other), jnp.inf)
    return first, jnp.where(square > 0, jnp.maximum(one, other), -jnp.inf)


def _both(a: Interval, b: Interval) -> Interval:
    return jnp.maximum(a[0], b[0]), jnp.minimum(a[1], b[1])


def face_and_normal(
    kind: Int[Array, " R"], at: Float[Array, "3 R"]
) -> tuple[Int[Array, " R"], Float[Array, "3 R"]]:
    """Returns (face, outward normal) at points of the surfaces, both in the unit shapes' space.

    Round sides are face 0, the top of a cylinder 1, the bottom of a cylinder or cone 2; a box's -x,
    +x, -y, ... are 0 to 5. Normals have any length; the transpose of `to_unit` maps them to the
    world. `kind` is the index into `KINDS`.
    """
    x, y, z = at
    radial = jnp.sqrt(x**2 + y**2)
    is_sphere, is_cylinder, is_cone, is_box = (kind == i for i in range(len(KINDS)))
    flat = (is_cylinder & (jnp.abs(z) > radial)) | (is_cone & (-1 - z > radial - (1 - z) / 2))

    on_x = is_box & (jnp.abs(x) >= jnp.maximum(jnp.abs(y), jnp.abs(z)))
    on_y = is_box & ~on_x & (jnp.abs(y) >= jnp.abs(z))
    on_z = is_box & ~on_x & ~on_y
    outward = jnp.where(on_x, x, jnp.where(on_y, y, z)) > 0
    box_face = jnp.where(on_x, 0, jnp.where(on_y, 2, 4)) + outward

    face = jnp.where(is_box, box_face, jnp.where(flat, jnp.where(z > 0, 1, 2), 0))
    round_z = jnp.where(is_sphere, z, jnp.where(is_cone, (1 - z) / 4, 0.0))
    nx = jnp.where(flat | on_y | on_z, 0.0, x)
    ny = jnp.where(flat | on_x | on_z, 0.0, y)
    nz = jnp.where(flat | on_z, z, jnp.where(is_box, 0.0, round_z))
    return face, jnp.stack([nx, ny, nz])
