"""Solvers for the small convex problems of the balancers, compiled into the step.

Each reads only the Gramian, in float32, and scales the gradients to unit norm first, so that norms
may differ by a factor of 1e8. Absent tasks and zero gradients are excluded: they get weight 0, and
the solution for the remaining tasks is that of the problem without them.

Quadratic programs are solved by active sets, the equations of Nash-MTL and FairGrad by damped
Newton steps on the convex functions whose stationary points they are.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from mtljax.balancing.active_set import RIDGE, dot, follow, matvec, nonnegative

ROUNDING = 6e-8
"""Rounding error of float32; bounds the solution of `fair` if gradients cancel."""


class Unit(NamedTuple):
    """Task gradients scaled to unit norm."""

    cosines: Float[Array, "T T"]
    """Inner products of the unit gradients; identity rows for excluded tasks."""
    norms: Float[Array, " T"]
    """Norms of the gradients; 1 for excluded tasks."""
    inside: Bool[Array, " T"]
    """True for present tasks with a nonzero gradient."""


def unit(gramian: Float[Array, "T T"], present: Bool[Array, " T"]) -> Unit:
    """Scales a Gramian to unit diagonal."""
    square = jnp.diagonal(gramian)
    inside = present & (square > 0)
    norms = jnp.sqrt(jnp.where(inside, square, 1.0))
    # Rounding can give opposed gradients a cosine below -1, and then solutions are unbounded.
    cosines = jnp.clip(gramian / norms[:, None] / norms[None, :], -1.0, 1.0)
    off = inside[:, None] & inside[None, :] & ~jnp.eye(gramian.shape[0], dtype=bool)
    return Unit(jnp.where(off, cosines, jnp.eye(gramian.shape[0])), norms, inside)


def project_simplex(point: Float[Array, " T"], present: Bool[Array, " T"]) -> Float[Array, " T"]:
    """Nearest point of the simplex over the present entries; absent entries are 0.

    References:
      Duchi et al., 2008, "Efficient projections onto the l1-ball"
    """
    ordered = jnp.sort(jnp.where(present, point, -jnp.inf), descending=True)
    rank = jnp.arange(1, point.shape[0] + 1)
    total = jnp.cumsum(jnp.where(jnp.isfinite(ordered), ordered, 0.0))
    support = jnp.isfinite(ordered) & (ordered - (total - 1) / rank > 0)
    size = jnp.maximum(support.sum(), 1)
    threshold = (total[size - 1] - 1) / size
    return jnp.where(present, jnp.maximum(point - threshold, 0.0), 0.0)


def min_norm(gramian: Float[Array, "T T"], present: Bool[Array, " T"]) -> Float[Array, " T"]:
    """argmin over the simplex of w' G w."""
    cosines, norms, inside = unit(gramian, present)
    smallest = jnp.min(jnp.where(inside, norms, jnp.inf))
    target = jnp.where(inside, smallest / norms, -1.0)
    weights = nonnegative(cosines, target) * jnp.where(inside, smallest / norms, 0.0)
    still = present & ~inside
    weights = jnp.where(still.any(), still, weights)
    return weights / jnp.maximum(weights.sum(), jnp.finfo(jnp.float32).tiny)


def dual_cone(
    gramian: Float[Array, "T T"], weights: Float[Array, " T"], present: Bool[Array, " T"]
) -> Float[Array, " T"]:
    """Weights of the projection of sum_t w_t g_t on the cone of conflict-free directions.

    The nearest d with <g_t, d> >= 0 for all t is sum_t (w_t + x_t) g_t with x >= 0.

    References:
      Quinton and Rey, 2024, arXiv:2406.16232, proposition 1
    """
    cosines, norms, inside = unit(gramian, present)
    weights = jnp.where(inside, weights * norms, 0.0)
    scale = jnp.maximum(jnp.max(jnp.abs(weights)), jnp.finfo(jnp.float32).tiny)
    weights = weights / scale
    target = jnp.where(inside, -matvec(cosines, weights), -1.0)
    return jnp.where(inside, scale * (weights + nonnegative(cosines, target)) / norms, 0.0)


def conflict_averse(
    gramian: Float[Array, "T T"],
    weights: Float[Array, " T"],
    radius: Float[Array, ""] | float,
    present: Bool[Array, " T"],
) -> Float[Array, " T"]:
    """x >= 0 of the direction d = g_0 + sum_t x_t g_t that maximizes the smallest gain near g_0.

    With g_0 = sum_t w_t g_t, d maximizes min_t <g_t, d> over |d - g_0| <= radius * |g_0|. For a
    floor m, the point nearest to g_0 with <g_t, d> >= m for all t is g_0 + sum_t x_t g_t with
    x >= 0; x is piecewise linear in m. The floor is raised from min_t <g_t, g_0>, with an exchange
    of task t when x_t or its slack reaches 0, until the distance from g_0 is the radius. This is
    CAGrad's problem: x is proportional to the w that minimizes <g_w, g_0> + radius |g_0| |g_w|.

    At a Pareto-stationary point the floor cannot exceed 0. If the ball contains directions with
    floor 0, the solution is the one nearest to g_0.

    References:
      Liu et al., 2021, arXiv:2110.14048, equation 3
    """
    cosines, norms, inside = unit(gramian, present)
    ridge = RIDGE * norms.shape[0]
    smallest = jnp.min(jnp.where(inside, norms, jnp.inf))
    height = jnp.where(inside, smallest / norms, 0.0)  # the floor for unit gradients
    base = jnp.where(inside, weights * norms, 0.0)
    scale = jnp.maximum(jnp.max(jnp.abs(base)), jnp.finfo(jnp.float32).tiny)
    base = base / scale
    inner = jnp.where(inside, matvec(cosines, base), 1.0)
    limit = radius**2 * jnp.maximum(dot(base, matvec(cosines, base)), 0.0)
    bounded = (present & ~inside).any()  # a zero gradient never gets above 0

    def floor_at_limit(fixed: Array, slope: Array) -> Array:
        """Floor at which |fixed + floor * slope| equals the radius."""
        c0, c1 = -dot(fixed, inner), dot(fixed, height) - dot(slope, inner)
        c2 = dot(slope, height)
        root = jnp.sqrt(jnp.maximum(c1 * c1 - 4 * c2 * (c0 - limit), 0.0))
        return jnp.where(c2 > 0, (root - c1) / jnp.where(c2 > 0, 2 * c2, 1.0), jnp.inf)

    def ceiling(fixed: Array, slope: Array, floor: Array) -> Array:
        # 0 is in the hull of the active gradients if most of this length is due to the ridge.
        length, of_ridge = dot(slope, height), ridge * dot(slope, slope)
        blocked = (bounded | ((length > 0) & (of_ridge > 0.5 * length))) & (floor <= 0)
        return jnp.minimum(floor_at_limit(fixed, slope), jnp.where(blocked, 0.0, jnp.inf))

    active, floor, fixed, slope = follow(cosines, inner, height, ceiling)
    floor = jnp.where(floor == 0, 0.0, floor_at_limit(fixed, slope))
    lift = jnp.where(active, jnp.maximum(fixed + floor * slope, 0.0), 0.0)
    return jnp.where(inside, scale * lift / norms, 0.0)


def constrained_min_norm(
    gramian: Float[Array, "T T"],
    normal: Float[Array, " T"],
    length: Float[Array, ""],
    share: float,
    present: Bool[Array, " T"],
) -> Float[Array, " T"]:
    """Simplex weights of the minimum-norm direction that descends q at a given rate.

    The direction is sum_t w_t f_t + v q, v = max(share - <q, sum_t w_t f_t> / |q|^2, 0). The w
    minimizes its squared norm minus 2 v share |q|^2. This is the dual of maximizing
    min_t <f_t, d> - |d|^2 / 2 over d with <q, d> >= share |q|^2.

    Args:
      gramian: [T, T], inner products of unit vectors f_t.
      normal: [T], <f_t, q> / |q|.
      length: |q|.
      share: Rate of descent of q, relative to |q|^2; >= 0.
      present: [T].

    References:
      Ye et al., 2024, arXiv:2401.09257
    """
    size = gramian.shape[0]
    inside = jnp.append(present, True)
    matrix = jnp.pad(gramian, (0, 1)).at[size, :size].set(normal).at[:size, size].set(normal)
    off = inside[:, None] & inside[None, :] & ~jnp.eye(size + 1, dtype=bool)
    matrix = jnp.where(off, matrix, jnp.eye(size + 1))
    height = jnp.append(present.astype(jnp.float32), 0.0)
    offset = jnp.append(jnp.where(present, 0.0, 1.0), -share * length)

    def at_sum_one(fixed: Array, slope: Array) -> Array:
        total = dot(slope, height)
        level = (1 - dot(fixed, height)) / jnp.where(total > 0, total, 1.0)
        return jnp.where(total > 0, level, jnp.inf)

    ceiling = lambda fixed, slope, _: at_sum_one(fixed, slope)
    active, level, fixed, slope = follow(matrix, offset, height, ceiling, first=size)
    level = at_sum_one(fixed, slope)
    weights = jnp.where(active, jnp.maximum(fixed + level * slope, 0.0), 0.0)[:size]
    weights = jnp.where(present, weights, 0.0)
    return weights / jnp.maximum(weights.sum(), jnp.finfo(jnp.float32).tiny)


def fair(
    gramian: Float[Array, "T T"],
    alpha: float,
    present: Bool[Array, " T"],
    preference: Float[Array, " T"],
    iterations: int = 200,
) -> Float[Array, " T"]:
    """Solution w >= 0 of FairGrad's equation (G w)_t = (p_t / w_t)^(1 / alpha), p the preference.

    Nash-MTL's equation at alpha = 1. A task with p_t = 0 has w_t = 0. The solution is the
    stationary point of the convex w' G w / 2 - sum_t u(w_t), u' = (p_t / w)^(1 / alpha), computed
    by Newton's method with step halving until the slope along the step does not change sign. If the
    gradients cancel and no solution exists, the ridge bounds w. Nash-MTL needs about 8 iterations,
    alpha = 5 with 64 norms from 1e-4 to 1e4 needs 62.
    """
    cosines, norms, inside = unit(gramian, present & (preference > 0))
    size = norms.shape[0]
    mean = jnp.exp(jnp.sum(jnp.where(inside, jnp.log(norms), 0.0)) / jnp.maximum(inside.sum(), 1))
    # With x = w * norms, C x = s * x^(-1 / alpha); solved by x = s^(alpha / (1 + alpha)) if C = I.
    source = jnp.where(inside, norms / mean, 1.0) ** (1 / alpha - 1)
    source = source * jnp.where(inside, preference, 1.0) ** (1 / alpha)
    halvings = 0.5 ** jnp.arange(8)
    # Bound for gradients that cancel, where C can be indefinite by rounding.
    furthest = 2 * jnp.max(source / ROUNDING) ** (alpha / (1 + alpha))

    def residual(x: Array) -> Array:
        return source * x ** (-1 / alpha) - matvec(cosines, x) - ROUNDING * x

    def iterate(carry: tuple) -> tuple:
        x, _, count = carry
        rest = residual(x)
        curvature = source * x ** (-1 / alpha - 1) / alpha
        unit_step = 1 / jnp.sqrt(curvature)  # preconditions the Hessian to C' + I
        hessian = cosines * unit_step[:, None] * unit_step[None, :]
        hessian += jnp.diag(1 + 4 * size * ROUNDING * unit_step**2)  # positive definite
        factor = jax.scipy.linalg.cho_factor(hessian)
        scaled = jax.scipy.linalg.cho_solve(factor, unit_step * rest)
        step = unit_step * scaled
        longest = 0.99 / jnp.maximum(jnp.max(-step / x), 0.99)
        trials = longest * halvings
        slopes = jax.vmap(lambda t: -dot(step, residual(x + t * step)))(trials)
        fits = slopes <= 0.5 * dot(step, rest)
        x = x + trials[jnp.argmax(fits)] * step
        return x, jnp.max(jnp.abs(step / x)), count + 1

    def unfinished(carry: tuple) -> Array:
        x, change, count = carry  # quadratic: the step after one of 3e-5 would be 1e-9
        return (change > 3e-5) & (jnp.max(x) < furthest) & (count < iterations)

    start = source ** (alpha / (1 + alpha))
    x, _, _ = jax.lax.while_loop(unfinished, iterate, (start, jnp.inf, 0))
    return jnp.where(inside, x * mean ** ((1 - alpha) / (1 + alpha)) / norms, 0.0)


def pseudo_solve(
    cosines: Float[Array, "T T"], target: Float[Array, " T"], inside: Bool[Array, " T"]
) -> Float[Array, " T"]:
    """pinv(C) b over the included tasks of a `Unit`, with one refinement; 0 for excluded tasks."""
    squares, vectors = jnp.linalg.eigh(cosines)
    resolved = squares > squares[-1] * inside.sum() * 2 * jnp.finfo(jnp.float32).eps
    inverse = jnp.where(resolved, 1 / jnp.where(resolved, squares, 1.0), 0.0)
    solve = lambda b: matvec(vectors, inverse * matvec(vectors.T, jnp.where(inside, b, 0.0)))
    solution = solve(target)
    return jnp.where(inside, solution + solve(target - matvec(cosines, solution)), 0.0)
