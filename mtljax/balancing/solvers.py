"""The small convex problems behind the balancers, solved inside the compiled step.

Each works on the Gramian alone, in float32, and brings the gradients to unit norm first: a task
whose gradient is 1e8 times smaller than the others' is then no harder than any. Absent tasks and
vanishing gradients stay out of the problem, so the others' solution is that of the problem without
them.

The quadratic programs are solved by active sets: one exchange of a task costs T^2 operations on the
tableau, the solution is exact up to rounding, and about T exchanges are needed. The equations of
Nash-MTL and FairGrad are the stationary points of convex functions, found by damped Newton.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

RIDGE = 3e-7
"""Added to the unit diagonal times T, so that parallel gradients do not divide by zero; its effect
is taken out again by refining the solution on the final active set."""
REFINEMENTS = 6
ROUNDING = 6e-8
"""Of float32. Where gradients cancel, it keeps `fair` from growing beyond what it can resolve."""


def matvec(matrix: Float[Array, "T T"], vector: Float[Array, "T ..."]) -> Float[Array, "T ..."]:
    """Matrix times vector or columns, in full float32 whatever the matrix units prefer."""
    return jnp.matmul(matrix, vector, precision="highest")


class Unit(NamedTuple):
    """The gradients at unit norm."""

    cosines: Float[Array, "T T"]
    """Inner products of the unit gradients; identity rows for tasks out of the problem."""
    norms: Float[Array, " T"]
    """The gradients' norms; 1 for tasks out of the problem."""
    inside: Bool[Array, " T"]
    """Which tasks are present with a gradient that is not 0."""


def unit(gramian: Float[Array, "T T"], present: Bool[Array, " T"]) -> Unit:
    """Scales a Gramian to unit diagonal."""
    square = jnp.diagonal(gramian)
    inside = present & (square > 0)
    norms = jnp.sqrt(jnp.where(inside, square, 1.0))
    cosines = gramian / norms[:, None] / norms[None, :]
    off = inside[:, None] & inside[None, :] & ~jnp.eye(gramian.shape[0], dtype=bool)
    return Unit(jnp.where(off, cosines, jnp.eye(gramian.shape[0])), norms, inside)


def project_simplex(point: Float[Array, " T"], present: Bool[Array, " T"]) -> Float[Array, " T"]:
    """The nearest point of the simplex over the present entries; the others are 0.

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


def exchange(tableau: Float[Array, "T K"], k: Array) -> Float[Array, "T K"]:
    """Principal pivot: variable k and its slack change places in `slack = tableau @ variables`."""
    here = jnp.arange(tableau.shape[0]) == k
    there = jnp.arange(tableau.shape[1]) == k
    row, column = tableau[k], tableau[:, k]
    pivot = row[k]
    row, column = jnp.where(there, -1.0, row) / pivot, jnp.where(here, 0.0, column)
    rest = jnp.where(there[None, :], 0.0, tableau) - column[:, None] * row[None, :]
    return jnp.where(here[:, None], -row[None, :], rest)


def refine(
    matrix: Float[Array, "T T"],
    tableau: Float[Array, "T K"],
    active: Bool[Array, " T"],
    target: Float[Array, "T N"],
    solution: Float[Array, "T N"],
) -> Float[Array, "T N"]:
    """Proximal steps to A x = b on the active set, which take out the ridge and the rounding."""
    inverse = jnp.where(active[:, None] & active[None, :], tableau[:, : tableau.shape[0]], 0.0)
    target = jnp.where(active[:, None], target, 0.0)
    solution = jnp.where(active[:, None], solution, 0.0)
    for _ in range(REFINEMENTS):
        residual = jnp.where(active[:, None], target - matvec(matrix, solution), 0.0)
        solution = solution + matvec(inverse, residual)
    return solution


def nonnegative(matrix: Float[Array, "T T"], target: Float[Array, " T"]) -> Float[Array, " T"]:
    """argmin over x >= 0 of x' A x / 2 - b' x, for A positive semi-definite with unit diagonal.

    Args:
      matrix: A.
      target: b. An entry < 0 whose row of A is the identity's stays out of the solution.

    References:
      Cottle, Pang and Stone, 1992, "The Linear Complementarity Problem", section 4.2
    """
    size = target.shape[0]
    scale = jnp.maximum(jnp.max(jnp.abs(target)), jnp.finfo(jnp.float32).tiny)
    target = target / scale
    ridged = matrix + RIDGE * size * jnp.eye(size)

    def find(tableau, active):
        slack = jnp.where(active, jnp.inf, tableau[:, size])
        driving = jnp.argmin(slack)
        return jnp.where(slack[driving] < -1e-6, driving, -1)

    def go_on(carry):
        _, _, driving, count = carry
        return (driving >= 0) & (count < 5 * size + 5)

    def iterate(carry):
        # The driving variable grows until its own slack is 0, or an active one falls to 0 first.
        tableau, active, driving, count = carry
        column, value = tableau[:, driving], tableau[:, size]
        bound = jnp.where(active & (column < 0), value / -column, jnp.inf)
        bound = bound.at[driving].set(-value[driving] / column[driving])
        k = jnp.argmin(bound)
        tableau, active = exchange(tableau, k), active.at[k].set(~active[k])
        driving = jnp.where(k == driving, find(tableau, active), driving)
        return tableau, active, driving, count + 1

    tableau = jnp.concatenate([ridged, -target[:, None]], axis=1)
    active = jnp.zeros(size, bool)
    start = tableau, active, find(tableau, active), 0
    tableau, active, _, _ = jax.lax.while_loop(go_on, iterate, start)
    solution = refine(matrix, tableau, active, target[:, None], tableau[:, size:])
    return scale * jnp.maximum(solution[:, 0], 0.0)


def min_norm(gramian: Float[Array, "T T"], present: Bool[Array, " T"]) -> Float[Array, " T"]:
    """argmin over the simplex of w' G w.

    Args:
      gramian: [T, T], positive semi-definite.
      present: [T]; absent entries get weight 0.
    """
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
    """Weights of the projection of sum_t w_t g_t on the cone of directions no task objects to.

    The nearest d with <g_t, d> >= 0 for all t is sum_t (w_t + x_t) g_t with x >= 0.

    Args:
      gramian: [T, T], positive semi-definite.
      weights: [T]; 0 for absent tasks.
      present: [T]; absent entries get weight 0.

    References:
      Quinton and Rey, 2024, arXiv:2406.16232, proposition 1
    """
    cosines, norms, inside = unit(gramian, present)
    weights = jnp.where(inside, weights * norms, 0.0)
    target = jnp.where(inside, -matvec(cosines, weights), -1.0)
    return jnp.where(inside, (weights + nonnegative(cosines, target)) / norms, 0.0)


def conflict_averse(
    gramian: Float[Array, "T T"],
    weights: Float[Array, " T"],
    radius: Float[Array, ""],
    present: Bool[Array, " T"],
) -> Float[Array, " T"]:
    """The x >= 0 for which g_0 + sum_t x_t g_t, in a ball around g_0, serves the worst task best.

    With g_0 = sum_t w_t g_t, maximises min_t <g_t, d> over |d - g_0| <= radius * |g_0|. For a
    floor m, the point nearest to g_0 with <g_t, d> >= m for all t is g_0 + sum_t x_t g_t with
    x >= 0; x is piecewise linear in m. So the floor is raised from min_t <g_t, g_0>, and a task
    exchanged where x_t or its slack reaches 0, until the distance from g_0 is the radius. This is
    CAGrad's problem: x is proportional to the w that minimises <g_w, g_0> + radius |g_0| |g_w|.

    At a Pareto-stationary point the floor cannot pass 0. If the ball reaches it, the answer is not
    unique; it is then the one nearest to g_0.

    Args:
      gramian: [T, T], positive semi-definite.
      weights: [T], of g_0; 0 for absent tasks.
      radius: Relative to |g_0|.
      present: [T]; absent entries get weight 0.

    References:
      Liu et al., 2021, arXiv:2110.14048, equation 3
    """
    cosines, norms, inside = unit(gramian, present)
    size = norms.shape[0]
    ridge = RIDGE * size
    smallest = jnp.min(jnp.where(inside, norms, jnp.inf))
    height = jnp.where(inside, smallest / norms, 0.0)  # the floor as the unit gradients see it
    base = jnp.where(inside, weights * norms, 0.0)
    scale = jnp.maximum(jnp.max(jnp.abs(base)), jnp.finfo(jnp.float32).tiny)
    base = base / scale
    inner = jnp.where(inside, matvec(cosines, base), 1.0)
    limit = radius**2 * jnp.maximum(jnp.dot(base, matvec(cosines, base)), 0.0)
    bounded = (present & ~inside).any()  # a task without gradient never gets above 0

    def floor_at_limit(fixed, slope):
        """The floor at which x = fixed + floor * slope is as long as the radius."""
        c0, c1 = -jnp.dot(fixed, inner), jnp.dot(fixed, height) - jnp.dot(slope, inner)
        c2 = jnp.dot(slope, height)
        root = jnp.sqrt(jnp.maximum(c1 * c1 - 4 * c2 * (c0 - limit), 0.0))
        return jnp.where(c2 > 0, (root - c1) / jnp.where(c2 > 0, 2 * c2, 1.0), jnp.inf)

    def iterate(carry):
        tableau, active, floor, _, count = carry
        fixed, slope = tableau[:, size], tableau[:, size + 1]
        event = jnp.where(slope < 0, jnp.maximum(fixed / -slope, floor), jnp.inf)
        k = jnp.argmin(event)
        fixed, slope = jnp.where(active, fixed, 0.0), jnp.where(active, slope, 0.0)
        # 0 lies in the hull of the active gradients where most of this length is the ridge's.
        stationary = ridge * jnp.dot(slope, slope) > 0.5 * jnp.dot(slope, height)
        blocked = (bounded | (stationary & active.any())) & (floor <= 0)
        ceiling = jnp.minimum(floor_at_limit(fixed, slope), jnp.where(blocked, 0.0, jnp.inf))
        done = ceiling <= event[k]
        keep = lambda old, new: jnp.where(done, old, new)
        return (
            keep(tableau, exchange(tableau, k)),
            keep(active, active.at[k].set(~active[k])),
            keep(ceiling, event[k]),
            done | ~jnp.isfinite(event[k]),
            count + 1,
        )

    def go_on(carry):
        return ~carry[3] & (carry[4] < 5 * size + 5)

    right = jnp.stack([inner, -height], axis=1)
    tableau = jnp.concatenate([cosines + ridge * jnp.eye(size), right], axis=1)
    start = tableau, jnp.zeros(size, bool), -jnp.inf, False, 0
    tableau, active, floor, _, _ = jax.lax.while_loop(go_on, iterate, start)
    fixed, slope = refine(cosines, tableau, active, -right, tableau[:, size:]).T
    floor = jnp.where(floor == 0, 0.0, floor_at_limit(fixed, slope))
    lift = jnp.where(active, jnp.maximum(fixed + floor * slope, 0.0), 0.0)
    return jnp.where(inside, scale * lift / norms, 0.0)


def fair(
    gramian: Float[Array, "T T"],
    alpha: float,
    present: Bool[Array, " T"],
    iterations: int = 60,
) -> Float[Array, " T"]:
    """The w > 0 with (G w)_t = w_t^(-1 / alpha): FairGrad's equation, Nash-MTL's at alpha = 1.

    It is the stationary point of the convex w' G w / 2 - sum_t u(w_t), u' = w^(-1 / alpha), found
    by Newton's method with the step halved until the slope along it has not turned round. Where the
    gradients cancel, and no solution exists, the ridge bounds w.

    Args:
      gramian: [T, T], positive semi-definite.
      alpha: > 0.
      present: [T]; absent tasks and those without gradient get weight 0.
      iterations: Bound on the work; about 8 are needed.
    """
    cosines, norms, inside = unit(gramian, present)
    size = norms.shape[0]
    mean = jnp.exp(jnp.sum(jnp.where(inside, jnp.log(norms), 0.0)) / jnp.maximum(inside.sum(), 1))
    # With x = w * norms, C x = s * x^(-1 / alpha); solved by x = s^(alpha / (1 + alpha)) if C = I.
    source = jnp.where(inside, norms / mean, 1.0) ** (1 / alpha - 1)
    halvings = 0.5 ** jnp.arange(8)

    def residual(x):
        return source * x ** (-1 / alpha) - matvec(cosines, x) - ROUNDING * x

    def iterate(carry):
        x, _, count = carry
        rest = residual(x)
        curvature = source * x ** (-1 / alpha - 1) / alpha
        unit_step = 1 / jnp.sqrt(curvature)  # preconditions the Hessian to C' + I
        hessian = cosines * unit_step[:, None] * unit_step[None, :] + jnp.eye(size)
        factor = jax.scipy.linalg.cho_factor(hessian)
        scaled = jax.scipy.linalg.cho_solve(factor, unit_step * rest)
        step = unit_step * scaled
        longest = 0.9 / jnp.maximum(jnp.max(-step / x), 0.9)
        trials = longest * halvings
        slopes = jax.vmap(lambda t: -jnp.dot(step, residual(x + t * step)))(trials)
        fits = slopes <= 0.5 * jnp.dot(step, rest)
        x = x + trials[jnp.argmax(fits)] * step
        return x, jnp.max(jnp.abs(step / x)), count + 1

    def go_on(carry):
        return (carry[1] > 3e-5) & (carry[2] < iterations)  # quadratic: the next step would be 1e-9

    start = source ** (alpha / (1 + alpha))
    x, _, _ = jax.lax.while_loop(go_on, iterate, (start, jnp.inf, 0))
    return jnp.where(inside, x * mean ** ((1 - alpha) / (1 + alpha)) / norms, 0.0)


def pseudo_solve(
    cosines: Float[Array, "T T"], target: Float[Array, " T"], inside: Bool[Array, " T"]
) -> Float[Array, " T"]:
    """pinv(C) b on the tasks inside, with one refinement.

    Args:
      cosines: [T, T], positive semi-definite with unit diagonal: see `unit`.
      target: b.
      inside: Which tasks belong to the problem; the others get 0.
    """
    squares, vectors = jnp.linalg.eigh(cosines)
    kept = squares > squares[-1] * inside.sum() * 2 * jnp.finfo(jnp.float32).eps
    inverse = jnp.where(kept, 1 / jnp.where(kept, squares, 1.0), 0.0)
    solve = lambda b: matvec(vectors, inverse * matvec(vectors.T, jnp.where(inside, b, 0.0)))
    solution = solve(target)
    return jnp.where(inside, solution + solve(target - matvec(cosines, solution)), 0.0)
