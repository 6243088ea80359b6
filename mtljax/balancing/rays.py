"""Preferences of a Pareto front, the volume that it dominates, and the axis of its networks."""

from typing import Any

import jax
import numpy as np
from jaxtyping import Array, Float, Int

AXIS = "rays"
"""Name of the axis of `vmap` over the networks of a front that train side by side."""


def rays(tasks: int, count: int) -> Float[np.ndarray, "{count} {tasks}"]:
    """Preferences over tasks with mean 1, evenly distributed over the interior of the simplex.

    Example:
      >>> rays(2, 2).tolist()
      [[0.5, 1.5], [1.5, 0.5]]
    """
    if tasks == 2:
        first = (np.arange(count) + 0.5) / max(count, 1)
        return tasks * np.stack([first, 1 - first], 1)
    from scipy.stats import qmc  # imported here: its import takes as long as that of JAX

    # Gaps between sorted uniform points are uniform on the simplex; a Halton sequence is even.
    points = qmc.Halton(max(tasks - 1, 1), scramble=False).random(count + 1)[1:, : tasks - 1]
    edges = np.sort(points, axis=1)
    return tasks * np.diff(edges, axis=1, prepend=0.0, append=1.0)


def hypervolume(points: Any, reference: Any, xp: Any = np) -> Any:
    """Volume of the region that points dominate, where lower is better, up to a reference point.

    The region is cut into slabs between consecutive values of the last coordinate; the base of each
    is the region of the points below it, in one dimension less. Exact, with K^T operations.

    Args:
      points: [..., K, T]; coordinates above the reference contribute no volume.
      reference: [T].
      xp: `numpy`, or `jax.numpy`, whose result is differentiable.

    Returns:
      The volume, [...].

    Example:
      >>> float(hypervolume(np.array([[0.0, 0.5], [0.5, 0.0], [0.6, 0.6]]), np.ones(2)))
      0.75

    References:
      Fonseca, Paquete and Lopez-Ibanez, 2006, doi:10.1109/CEC.2006.1688440
    """
    reference = xp.asarray(reference)
    points = xp.minimum(xp.asarray(points), reference)
    if points.shape[-1] == 1:
        return reference[0] - points[..., 0].min(-1)
    order = xp.argsort(points[..., -1], axis=-1)
    points = xp.take_along_axis(points, order[..., None], axis=-2)
    level = points[..., -1]
    top = xp.broadcast_to(reference[-1], (*level.shape[:-1], 1))
    height = xp.diff(xp.concatenate([level, top], axis=-1), axis=-1)
    count = points.shape[-2]
    is_below = xp.arange(count)[None, :] <= xp.arange(count)[:, None]
    bases = xp.where(is_below[..., None], points[..., None, :, :-1], reference[:-1])
    return (height * hypervolume(bases, reference[:-1], xp)).sum(-1)


def of_all_rays(value: Array) -> tuple[Array, Int[Array, ""] | int]:
    """Values of all networks of the front, [K, ...], and the index of this one.

    A network that trains separately is a front of one.
    """
    try:
        return jax.lax.all_gather(value, AXIS), jax.lax.axis_index(AXIS)
    except NameError:  # there is no such axis
        return value[None], 0
