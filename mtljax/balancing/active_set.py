"""Active-set solvers for small convex quadratic programs, on a tableau in device memory.

A pivot costs T^2 operations, and the solution takes about T pivots. It is exact up to rounding.

References:
  Cottle, Pang and Stone, 1992, "The Linear Complementarity Problem", chapter 4
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

RIDGE = 3e-7
"""Ridge divided by T, added to the unit diagonal against division by zero for parallel gradients.
`refine` removes its effect from the solution."""
REFINEMENTS = 6
"""Number of steps of iterative refinement."""


def matvec(matrix: Float[Array, "T T"], vector: Float[Array, "T ..."]) -> Float[Array, "T ..."]:
    """Product of a matrix and a vector or columns, in full float32 on every backend."""
    return jnp.matmul(matrix, vector, precision="highest")


def dot(a: Float[Array, " T"], b: Float[Array, " T"]) -> Float[Array, ""]:
    """Inner product of two vectors, in full float32 on every backend."""
    return jnp.dot(a, b, precision="highest")


def exchange(tableau: Float[Array, "T K"], k: Array | int) -> Float[Array, "T K"]:
    """Principal pivot: exchanges variable k and its slack in `slack = tableau @ variables`."""
    is_row = jnp.arange(tableau.shape[0]) == k
    is_column = jnp.arange(tableau.shape[1]) == k
    row, column = tableau[k], tableau[:, k]
    pivot = row[k]
    row, column = jnp.where(is_column, -1.0, row) / pivot, jnp.where(is_row, 0.0, column)
    rest = jnp.where(is_column[None, :], 0.0, tableau) - column[:, None] * row[None, :]
    return jnp.where(is_row[:, None], -row[None, :], rest)


def refine(
    matrix: Float[Array, "T T"],
    tableau: Float[Array, "T K"],
    active: Bool[Array, " T"],
    target: Float[Array, "T N"],
    solution: Float[Array, "T N"],
) -> Float[Array, "T N"]:
    """Proximal steps towards A x = b on the active set, which remove the effect of the ridge."""
    inverse = jnp.where(active[:, None] & active[None, :], tableau[:, : tableau.shape[0]], 0.0)
    target = jnp.where(active[:, None], target, 0.0)
    solution = jnp.where(active[:, None], solution, 0.0)
    for _ in range(REFINEMENTS):
        residual = jnp.where(active[:, None], target - matvec(matrix, solution), 0.0)
        solution = solution + matvec(inverse, residual)
    return solution


def nonnegative(matrix: Float[Array, "T T"], target: Float[Array, " T"]) -> Float[Array, " T"]:
    """argmin over x >= 0 of x' A x / 2 - b' x, for A positive semi-definite with unit diagonal.

    An entry of b < 0 with an identity row in A is 0 in the solution.
    """
    size = target.shape[0]
    scale = jnp.maximum(jnp.max(jnp.abs(target)), jnp.finfo(jnp.float32).tiny)
    target = target / scale
    ridged = matrix + RIDGE * size * jnp.eye(size)

    def next_driving(tableau: Array, active: Array) -> Array:
        slack = jnp.where(active, jnp.inf, tableau[:, size])
        driving = jnp.argmin(slack)
        return jnp.where(slack[driving] < -1e-6, driving, -1)

    def unfinished(carry: tuple) -> Array:
        _, _, driving, count = carry
        return (driving >= 0) & (count < 5 * size + 5)

    def pivot(carry: tuple) -> tuple:
        # The driving variable grows until its slack or an active variable is 0.
        tableau, active, driving, count = carry
        column, value = tableau[:, driving], tableau[:, size]
        bound = jnp.where(active & (column < 0), value / -column, jnp.inf)
        bound = bound.at[driving].set(-value[driving] / column[driving])
        k = jnp.argmin(bound)
        tableau, active = exchange(tableau, k), active.at[k].set(~active[k])
        driving = jnp.where(k == driving, next_driving(tableau, active), driving)
        return tableau, active, driving, count + 1

    tableau = jnp.concatenate([ridged, -target[:, None]], axis=1)
    active = jnp.zeros(size, bool)
    start = tableau, active, next_driving(tableau, active), 0
    tableau, active, _, _ = jax.lax.while_loop(unfinished, pivot, start)
    rough = jnp.maximum(jnp.where(active, tableau[:, size], 0.0), 0.0)
    fine = refine(matrix, tableau, active, target[:, None], tableau[:, size:])[:, 0]
    fine = jnp.maximum(fine, 0.0)

    def violation(x: Array) -> Array:
        rest = target - matvec(matrix, x)
        return jnp.max(jnp.where(active, jnp.abs(rest), rest))

    # With linearly dependent active variables, refinement without the ridge can diverge.
    return scale * jnp.where(violation(fine) < violation(rough), fine, rough)


def follow(
    matrix: Float[Array, "T T"],
    offset: Float[Array, " T"],
    height: Float[Array, " T"],
    ceiling: Callable[[Array, Array, Array], Array],
    first: int | None = None,
) -> tuple[Bool[Array, " T"], Array, Float[Array, " T"], Float[Array, " T"]]:
    """Follows the path of x >= 0 with A x + offset >= m * height, complementary, as m rises.

    x is piecewise linear in m: a variable is exchanged when it or its slack reaches 0.

    Args:
      matrix: A, positive semi-definite with unit diagonal.
      offset: Offset of the slack.
      height: Factor of m; x is 0 where it is 0 and the offset > 0.
      ceiling: `(fixed, slope, m)` -> the m at which to stop on the current piece,
        x = fixed + m * slope; a value past the end of the piece continues on the next.
      first: Variable with height 0 and offset < 0, which is positive at m = -inf.

    Returns:
      active, m, fixed, slope: the last piece, and the m at which the path stopped.
    """
    size = offset.shape[0]

    def pivot(carry: tuple) -> tuple:
        tableau, active, m, _, count = carry
        fixed, slope = tableau[:, size], tableau[:, size + 1]
        event = jnp.where(slope < 0, jnp.maximum(fixed / -slope, m), jnp.inf)
        k = jnp.argmin(event)
        stop = ceiling(jnp.where(active, fixed, 0.0), jnp.where(active, slope, 0.0), m)
        # The ridge bounds pivots from below, unless A is indefinite by rounding.
        done = (stop <= event[k]) | (tableau[k, k] < RIDGE / 10)
        unless_done = lambda old, new: jnp.where(done, old, new)
        return (
            unless_done(tableau, exchange(tableau, k)),
            unless_done(active, active.at[k].set(~active[k])),
            jnp.minimum(stop, event[k]),
            done | ~jnp.isfinite(event[k]),
            count + 1,
        )

    def unfinished(carry: tuple) -> Array:
        return ~carry[3] & (carry[4] < 5 * size + 5)

    right = jnp.stack([offset, -height], axis=1)
    tableau = jnp.concatenate([matrix + RIDGE * size * jnp.eye(size), right], axis=1)
    active = jnp.zeros(size, bool)
    if first is not None:
        tableau, active = exchange(tableau, first), active.at[first].set(True)
    start = tableau, active, jnp.array(-jnp.inf, tableau.dtype), False, 0
    tableau, active, m, _, _ = jax.lax.while_loop(unfinished, pivot, start)
    fixed, slope = refine(matrix, tableau, active, -right, tableau[:, size:]).T
    return active, m, fixed, slope
