"""What rays hit, in float64 and by other means than the renderer: every place where a surface could
be met, of which the nearest counts that lies on the solid."""

import numpy as np

from mtljax.data.scenes.objects import KIND_OF_SOLID, SOLIDS
from mtljax.data.scenes.solids import KINDS


def rays(camera, size: int) -> np.ndarray:
    """[size * size, 3] directions through the pixels' middles, one meter deep."""
    middle = np.arange(size) + 0.5
    y, x = np.meshgrid(1 - 2 * middle / size, 2 * middle / size - 1, indexing="ij")
    slope = float(camera.slope)
    local = np.stack([slope * x, slope * y, -np.ones_like(x)], -1).reshape(-1, 3)
    return local @ np.asarray(camera.axes, np.float64)


def first_hits(scene, directions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(surface, distance in lengths of the direction) of each ray from the camera."""
    start = np.asarray(scene.camera.position, np.float64)
    solids = scene.solids
    found = np.full((SOLIDS + len(scene.room.normal), len(directions)), np.inf)
    for i in range(SOLIDS):
        if solids.exists[i]:
            frame = (
                np.asarray(x[i], np.float64) for x in (solids.center, solids.axes, solids.size)
            )
            found[i] = _CANDIDATES[KINDS[KIND_OF_SOLID[i]]](start, directions, *frame)
    for j, (normal, offset) in enumerate(zip(scene.room.normal, scene.room.offset, strict=True)):
        toward = directions @ np.asarray(normal, np.float64)
        gap = float(offset) - start @ np.asarray(normal, np.float64)
        found[SOLIDS + j] = np.where(toward > 0, gap / np.where(toward > 0, toward, 1), np.inf)
    return found.argmin(0), found.min(0)


def _quadratic(a, b, c):
    """Both roots of a t^2 + b t + c, NaN where there are none."""
    with np.errstate(invalid="ignore", divide="ignore"):
        root = np.sqrt(b * b - 4 * a * c)
        return (-b - root) / (2 * a), (-b + root) / (2 * a)


def _nearest(candidates):
    """The smallest t > 0 of those that hold."""
    return np.min([np.where(on & (t > 0), t, np.inf) for t, on in candidates], axis=0)


def _sphere(start, directions, center, axes, size):
    away = start - center
    square = (directions**2).sum(-1)
    roots = _quadratic(square, 2 * directions @ away, away @ away - size[0] ** 2)
    return _nearest((t, np.isfinite(t)) for t in roots)


def _axial(start, directions, center, axes):
    """Height along the axis and the part across it, of the start and of the directions."""
    axis, away = axes[2], start - center
    height, climb = away @ axis, directions @ axis
    return height, away - height * axis, climb, directions - climb[:, None] * axis


def _cylinder(start, directions, center, axes, size):
    height, across, climb, move = _axial(start, directions, center, axes)
    radius, half = size[0], size[2]
    roots = _quadratic((move**2).sum(-1), 2 * move @ across, across @ across - radius**2)
    candidates = [(t, np.abs(height + t * climb) <= half) for t in roots]
    for end in (-half, half):
        t = (end - height) / climb
        candidates.append((t, ((across + t[:, None] * move) ** 2).sum(-1) <= radius**2))
    return _nearest(candidates)


def _cone(start, directions, center, axes, size):
    height, across, climb, move = _axial(start, directions, center, axes)
    radius, half = size[0], size[2]
    slope = radius / (2 * half)  # radius lost per height
    below = half - height  # the tip is at height `half`
    roots = _quadratic(
        (move**2).sum(-1) - (slope * climb) ** 2,
        2 * (move @ across + slope**2 * below * climb),
        across @ across - (slope * below) ** 2,
    )
    candidates = [(t, np.abs(height + t * climb) <= half) for t in roots]
    t = (-half - height) / climb
    candidates.append((t, ((across + t[:, None] * move) ** 2).sum(-1) <= radius**2))
    return _nearest(candidates)


def _box(start, directions, center, axes, size):
    away, move = axes @ (start - center), directions @ axes.T
    candidates = []
    for axis in range(3):
        others = [i for i in range(3) if i != axis]
        for side in (-size[axis], size[axis]):
            with np.errstate(divide="ignore", invalid="ignore"):
                t = (side - away[axis]) / move[:, axis]
                inside = [np.abs(away[i] + t * move[:, i]) <= size[i] for i in others]
            candidates.append((t, inside[0] & inside[1]))
    return _nearest(candidates)


_CANDIDATES = {"sphere": _sphere, "cylinder": _cylinder, "cone": _cone, "box": _box}


def surface_points(kind: str, center, axes, size) -> np.ndarray:
    """[n, 3] points all over a solid's surface, its corners and rims among them."""
    turn = np.linspace(0, 2 * np.pi, 73)
    ring = np.stack([np.cos(turn), np.sin(turn), np.zeros_like(turn)], -1)
    up = np.array([0.0, 0.0, 1.0])
    if kind == "sphere":
        heights = np.linspace(-1, 1, 41)
        unit = [ring * np.sqrt(1 - h * h) + h * up for h in heights]
    elif kind == "cylinder":
        unit = [ring + h * up for h in np.linspace(-1, 1, 21)] + [ring * 0.5 - up, ring * 0.5 + up]
    elif kind == "cone":
        unit = [ring * (1 - h) / 2 + h * up for h in np.linspace(-1, 1, 21)]
    else:
        grid = np.stack(np.meshgrid(*[np.linspace(-1, 1, 9)] * 3), -1).reshape(-1, 3)
        unit = [grid[(np.abs(grid) == 1).any(-1)]]
    return np.asarray(center) + (np.concatenate(unit) * size) @ np.asarray(axes)


def is_inside(kind: str, points, center, axes, size, margin: float) -> np.ndarray:
    """Which points are inside of a solid, by at least `margin` of its size."""
    x, y, z = ((points - np.asarray(center)) @ np.asarray(axes).T / size).T / (1 - margin)
    if kind == "sphere":
        return x**2 + y**2 + z**2 < 1
    if kind == "cylinder":
        return (x**2 + y**2 < 1) & (np.abs(z) < 1)
    if kind == "cone":
        return (np.hypot(x, y) < (1 - z) / 2) & (z > -1)
    return np.maximum(np.maximum(np.abs(x), np.abs(y)), np.abs(z)) < 1
