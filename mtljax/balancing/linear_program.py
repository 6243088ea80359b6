"""Solver for small linear programs, on a tableau in device memory.

A pivot costs (rows * columns) operations, and the solution takes about as many pivots as there are
variables and constraints.

References:
  Vanderbei, 2020, "Linear Programming", chapter 7 (parametric self-dual simplex method)
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

LEAST_PIVOT = 3e-7
"""Smaller entries of the tableau are rounding errors."""
ROUNDING = 2e-7
"""Smaller values are rounding errors of a value of 1."""
GOAL, ENOUGH = 1e-7, 1e-5
"""Parameter at which the exchanges end; the largest with which the program counts as solved."""


class Solution(NamedTuple):
    """Solution of a linear program."""

    x: Float[Array, " N"]
    """Minimizer; arbitrary if `solved` is False."""
    solved: Bool[Array, ""]
    """False if the constraints contradict each other or the objective has no bound."""


def maximize(
    objective: Float[Array, " N"], matrix: Float[Array, "M N"], bound: Float[Array, " M"]
) -> Solution:
    """argmax over x >= 0 of c' x with A x <= b.

    The start x = 0 is optimal for c - m e and b + m f with positive e, f and a large m. Variables
    are exchanged while m falls to 0, by the simplex method where an entry of c becomes positive and
    by the dual simplex method where one of b becomes negative. Irregular e and f prevent ties.
    """
    rows, columns = matrix.shape
    size = rows + columns
    largest = _largest(matrix, axis=1)
    matrix, bound = matrix / largest[:, None], bound / largest
    units = _largest(matrix, axis=0)
    matrix, objective = matrix / units, objective / units
    perturbation = 1 + (np.arange(1, size + 1) * 0.6180339887) % 1
    scale_of = lambda x: jnp.maximum(jnp.max(jnp.abs(x), initial=0.0), jnp.finfo(jnp.float32).tiny)
    scale = scale_of(objective), scale_of(bound)
    tableau = jnp.zeros((rows + 2, columns + 2), jnp.float32)
    tableau = tableau.at[:rows, :columns].set(matrix)
    tableau = tableau.at[:rows, columns].set(bound / scale[1])
    tableau = tableau.at[:rows, columns + 1].set(jnp.asarray(perturbation[columns:], jnp.float32))
    tableau = tableau.at[rows, :columns].set(-objective / scale[0])
    tableau = tableau.at[rows + 1, :columns].set(jnp.asarray(perturbation[:columns], jnp.float32))
    of_row, of_column = jnp.arange(columns, size), jnp.arange(columns)

    def unfinished(carry: tuple) -> Array:
        return ~carry[4] & (carry[5] < 10 * size)

    def pivot(carry: tuple) -> tuple:
        tableau, of_row, of_column, _, _, count = carry
        inside = tableau[:rows, :columns]
        value, shift = tableau[:rows, columns], tableau[:rows, columns + 1]
        price, slope = tableau[rows, :columns], tableau[rows + 1, :columns]
        ratio = lambda a, b: jnp.where(b > 0, a / jnp.where(b > 0, b, 1.0), -jnp.inf)
        by_row, by_column = ratio(-_rounded(value), shift), ratio(-_rounded(price), slope)
        row, column = jnp.argmax(by_row), jnp.argmax(by_column)
        level = jnp.maximum(by_row[row], by_column[column])
        is_dual = by_row[row] >= by_column[column]
        entries = inside[:, column]
        room = jnp.where(entries > LEAST_PIVOT, (value + level * shift) / entries, jnp.inf)
        costs = -inside[row]
        price_room = jnp.where(costs > LEAST_PIVOT, (price + level * slope) / costs, jnp.inf)
        row = jnp.where(is_dual, row, jnp.argmin(room))
        column = jnp.where(is_dual, jnp.argmin(price_room), column)
        blocked = ~jnp.isfinite(jnp.where(is_dual, price_room.min(), room.min()))
        stays = (level <= GOAL) | blocked
        new = _exchange(tableau, row, column)
        labels = of_row[row], of_column[column]
        return (
            jnp.where(stays, tableau, new),
            jnp.where(stays, of_row, of_row.at[row].set(labels[1])),
            jnp.where(stays, of_column, of_column.at[column].set(labels[0])),
            level,
            stays,
            count + 1,
        )

    start = tableau, of_row, of_column, jnp.inf, False, 0
    _, of_row, _, level, _, _ = jax.lax.while_loop(unfinished, pivot, start)
    x = _basic_solution(matrix, bound / scale[1], of_row)
    return Solution(scale[1] * x[:columns] / units, (level <= ENOUGH) & jnp.isfinite(x).all())


def _largest(matrix: Array, axis: int) -> Array:
    """Largest absolute values along an axis; 1 where all are 0."""
    largest = jnp.max(jnp.abs(matrix), axis=axis)
    return jnp.where(largest > 0, largest, 1.0)


def _rounded(values: Array) -> Array:
    """Replaces values that may be rounding errors of the largest by 0."""
    return jnp.where(jnp.abs(values) > ROUNDING * jnp.max(jnp.abs(values)), values, 0.0)


def _exchange(tableau: Array, row: Array, column: Array) -> Array:
    """Pivot: exchanges the variables of a row and a column."""
    is_row = jnp.arange(tableau.shape[0]) == row
    is_column = jnp.arange(tableau.shape[1]) == column
    entries, pivot_row = tableau[:, column], tableau[row]
    pivot = pivot_row[column]
    scaled = jnp.where(is_column, 1.0, pivot_row) / pivot
    rest = jnp.where(is_column[None, :], 0.0, tableau) - entries[:, None] * scaled[None, :]
    return jnp.where(is_row[:, None], scaled[None, :], rest)


def _basic_solution(matrix: Array, bound: Array, basis: Array) -> Array:
    """Values of variables and slacks, recomputed: pivots accumulate rounding errors."""
    rows, columns = matrix.shape
    square = jnp.concatenate([matrix, jnp.eye(rows)], axis=1)[:, basis]
    factor = jax.scipy.linalg.lu_factor(square)
    solve = lambda b: jax.scipy.linalg.lu_solve(factor, b)
    values = solve(bound)
    values = values + solve(bound - jnp.matmul(square, values, precision="highest"))
    return jnp.zeros(rows + columns).at[basis].set(jnp.maximum(values, 0.0))
