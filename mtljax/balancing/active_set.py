"""Small convex quadratic programs by active sets, on a tableau that stays on the device.

One exchange of a variable costs T^2 operations, and about T exchanges lead to the solution, which
is then exact up to rounding.

References:
  Cottle, Pang and Stone, 1992, "The Linear Complementarity Problem", chapter 4
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

RIDGE = 3e-7
"""Added to the unit diagonal times T, so that parallel gradients do not divide by zero; its effect
is taken out again by refining the solution on the final active set."""
REFINEMENTS = 6


def matvec(matrix: Float[Array, "T T"], vector: Float[Array, "T ..."]) -> Float[Array, "T ..."]:
    """Matrix times vector or columns, in full float32 whatever the matrix units prefer."""
    return jnp.matmul(matrix, vector, precision="highest")


def exchange(tableau: Float[Array, "T K"], k: Array | int) -> Float[Array, "T K"]:
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
    rough = jnp.maximum(jnp.where(active, tableau[:, size], 0.0), 0.0)
    fine = refine(matrix, tableau, active, target[:, None], tableau[:, size:])[:, 0]
    fine = jnp.maximum(fine, 0.0)

    def violation(x):
        rest = target - matvec(matrix, x)
        return jnp.max(jnp.where(active, jnp.abs(rest), rest))

    # Where more variables are active than are independent, the ridge alone holds them together.
    return scale * jnp.where(violation(fine) < violation(rough), fine, rough)


def follow(
    matrix: Float[Array, "T T"],
    offset: Float[Array, " T"],
    height: Float[Array, " T"],
    ceiling: Callable[[Array, Array, Array], Array],
    first: int | None = None,
) -> tuple[Bool[Array, " T"], Array, Float[Array, " T"], Float[Array, " T"]]:
    """Follows x >= 0 with A x + offset >= m * height and these two orthogonal, as m rises.

    x is piecewise linear in m: a variable is exchanged where it or its slack reaches 0.

    Args:
      matrix: A, positive semi-definite with unit diagonal.
      offset: [T].
      height: [T]. Where it is 0 and the offset > 0, x stays 0.
      ceiling: `(fixed, slope, m)` -> the m at which to stop on the piece x = fixed + m * slope that
        m is on; beyond the piece's end if it is not on it.
      first: A variable that is not 0 at m = -inf, if there is one: its height is 0, its offset < 0.

    Returns:
      active, m, fixed, slope: the last piece, and where on it the path stopped.
    """
    size = offset.shape[0]

    def iterate(carry):
        tableau, active, m, _, count = carry
        fixed, slope = tableau[:, size], tableau[:, size + 1]
        event = jnp.where(slope < 0, jnp.maximum(fixed / -slope, m), jnp.inf)
        k = jnp.argmin(event)
        stop = ceiling(jnp.where(active, fixed, 0.0), jnp.where(active, slope, 0.0), m)
        done = stop <= event[k]
        keep = lambda old, new: jnp.where(done, old, new)
        return (
            keep(tableau, exchange(tableau, k)),
            keep(active, active.at[k].set(~active[k])),
            keep(stop, event[k]),
            done | ~jnp.isfinite(event[k]),
            count + 1,
        )

    def go_on(carry):
        return ~carry[3] & (carry[4] < 5 * size + 5)

    right = jnp.stack([offset, -height], axis=1)
    tableau = jnp.concatenate([matrix + RIDGE * size * jnp.eye(size), right], axis=1)
    active = jnp.zeros(size, bool)
    if first is not None:
        tableau, active = exchange(tableau, first), active.at[first].set(True)
    start = tableau, active, jnp.array(-jnp.inf, tableau.dtype), False, 0
    tableau, active, m, _, _ = jax.lax.while_loop(go_on, iterate, start)
    fixed, slope = refine(matrix, tableau, active, -right, tableau[:, size:]).T
    return active, m, fixed, slope
