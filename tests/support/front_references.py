"""Methods with a preference written down again from their papers: NumPy and SciPy, float64."""

import itertools

import numpy as np
import scipy.linalg
import scipy.optimize
import scipy.stats
from support.balancing_references import least_norm


def epo(jacobian, losses, preference=None):
    """Mahapatra and Rajan, 2020, equations 13 to 24, with HiGHS as the solver of both programs."""
    size = len(losses)
    preference = np.ones(size) if preference is None else preference
    scaled = preference * losses
    share = scaled / scaled.sum()
    logs = np.log(np.maximum(size * share, 1e-3))
    uneven = share @ logs
    adjustment = preference * (logs - uneven)
    inner = jacobian @ jacobian.T
    pull = inner @ adjustment
    if uneven > 1e-4:
        objective, rows, least = pull, inner, np.zeros(size)
        if (pull > 0).any():
            worst = scaled == scaled.max()
            least = np.where(worst, 0.0, pull)
            keep = worst | (pull <= 0)
            rows, least = inner[keep], least[keep]
    else:
        objective = inner.sum(0)
        rows, least = np.vstack([inner, pull]), np.append(np.zeros(size), min(pull.max(), 0.0))
    scale = np.linalg.norm(rows, axis=1) + 1e-300
    found = scipy.optimize.linprog(
        -objective / np.abs(objective).max(),
        A_ub=-rows / scale[:, None],
        b_ub=-least / scale,
        A_eq=np.ones((1, size)),
        b_eq=[1.0],
        options={"primal_feasibility_tolerance": 1e-10, "dual_feasibility_tolerance": 1e-10},
    )
    weights = found.x if found.status == 0 else preference / preference.sum()
    return size * weights @ jacobian


def ray_of(preference, size):
    ray = 1 / (np.ones(size) if preference is None else preference)
    return ray / np.linalg.norm(ray)


def pmgda(jacobian, losses, preference=None):
    """Zhang et al., 2024, equation 20, by HiGHS."""
    size = len(losses)
    ray = ray_of(preference, size)
    across = losses - (losses @ ray) * ray
    if np.linalg.norm(across) < 1e-2:
        return least_norm(jacobian) @ jacobian
    slopes = across / np.linalg.norm(across)
    vectors = np.vstack([jacobian, slopes @ jacobian])
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    rows = np.hstack([-vectors @ unit.T, -np.ones((size + 1, 1))])
    rows[-1, -1] = 0.0
    least = np.append(np.zeros(size), -0.8 * np.linalg.norm(vectors[-1]))
    scale = np.abs(rows).max(1)
    found = scipy.optimize.linprog(
        np.append(np.zeros(size + 1), 1.0),
        A_ub=rows / scale[:, None],
        b_ub=least / scale,
        A_eq=np.append(np.ones(size + 1), 0.0)[None],
        b_eq=[1.0],
        bounds=[(0, None)] * (size + 1) + [(None, None)],
        options={"primal_feasibility_tolerance": 1e-10, "dual_feasibility_tolerance": 1e-10},
    )
    return found.x[:-1] @ unit


def ferero(jacobian, losses, preference=None):
    """Chen et al., 2024, in the dual: weights on the simplex, free multipliers of the constraint.

    Without its rows across the ray, the problem is a least-norm one on a line, searched by golden
    section over the slope that the simplex can give.
    """
    size = len(losses)
    ray = ray_of(preference, size)
    span = scipy.linalg.null_space(ray[None]).T  # rows across the ray
    across = span @ jacobian
    # The shortest direction with <grad H, d> = H / 2; orthogonal to `free`.
    fixed = np.linalg.pinv(across) @ (0.5 * span @ losses)
    free = ray @ jacobian
    free = free - np.linalg.pinv(across) @ (across @ free)
    value = lambda a: (jacobian @ (fixed + a * free)).min() - a**2 * (free @ free) / 2
    low, high = ray.min() - 1e-9, ray.max() + 1e-9
    found = scipy.optimize.minimize_scalar(
        lambda a: -value(a), bounds=(low, high), method="bounded", options={"xatol": 1e-12}
    )
    return fixed + found.x * free


def pmtl(preference=None, rays=5):
    """Lin et al., 2019, algorithm 1: first the constraints only, then with the losses."""
    found = False

    def step(jacobian, losses, key=None):
        nonlocal found
        size = len(losses)
        units = np.array([ray_of(other, size) for other in mean_one_rays(size, rays)])
        change = units - ray_of(preference, size)
        active = change @ losses / np.linalg.norm(losses) > 1e-6
        found = found or not active.any()
        rows = change[active] if not found else np.vstack([np.eye(size), change[active]])
        weights = least_norm(rows @ jacobian) @ rows
        return weights @ jacobian

    return step


def mean_one_rays(size, count):
    if size == 1:
        return np.ones((count, 1))
    if size == 2:
        first = (np.arange(count) + 0.5) / count
        return 2 * np.stack([first, 1 - first], 1)
    points = scipy.stats.qmc.Halton(size - 1, scramble=False).random(count + 1)[1:]
    edges = np.hstack([np.zeros((count, 1)), np.sort(points, 1), np.ones((count, 1))])
    return size * np.diff(edges, axis=1)


def volume_by_inclusion(points, reference):
    """Hypervolume by inclusion and exclusion of boxes, over all subsets."""
    total = 0.0
    for count in range(1, len(points) + 1):
        for subset in itertools.combinations(points, count):
            box = np.maximum(reference - np.max(subset, axis=0), 0.0).prod()
            total += (-1) ** (count + 1) * box
    return total


def volume_weights(points, reference):
    """Derivatives of the volume of each point's front, of norm 1, by central differences."""
    points = np.asarray(points, float)
    left, fronts = list(range(len(points))), []
    dominates = lambda a, b: (points[a] <= points[b]).all() and (points[a] < points[b]).any()
    while left:
        fronts.append([b for b in left if not any(dominates(a, b) for a in left)])
        left = [k for k in left if k not in fronts[-1]]
    weights = np.zeros_like(points)
    for front in fronts:
        for row, k in enumerate(front):
            for t in range(points.shape[1]):
                step = np.zeros((len(front), points.shape[1]))
                step[row, t] = 1e-6
                rise = volume_by_inclusion(points[front] + step, reference)
                rise -= volume_by_inclusion(points[front] - step, reference)
                weights[k, t] = -rise / 2e-6
    return weights / np.linalg.norm(weights, axis=1, keepdims=True)


def hypervolume(preference=None):
    """A network alone: with the preference for 100 steps, which a test without steps never ends."""

    def step(jacobian, losses, key=None):
        weights = np.ones(len(losses)) if preference is None else preference
        return weights / np.linalg.norm(weights) @ jacobian

    return step


of_losses = lambda step: lambda: lambda jacobian, losses, key: step(jacobian, losses)

REFERENCES = {
    "epo": of_losses(epo),
    "pmgda": of_losses(pmgda),
    "ferero": of_losses(ferero),
    "pmtl": pmtl,
    "hypervolume": hypervolume,
}
"""Name -> a function that makes the reference's step, for equal preferences."""
