"""Singular values of task gradients whose norms differ by orders of magnitude.

The Gramian of gradients with norms from 1e-2 to 1e2 has eigenvalues that differ by 1e8, of which
`eigh` in float32 loses the smaller half. One-sided Jacobi rotations find each singular value to the
precision of float32 if the cosines of the gradients are well conditioned, for any norms
(Demmel and Veselic, 1992, doi:10.1137/0613074).
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from mtljax.balancing import solvers

SWEEPS = 20
"""Largest number of sweeps over all pairs; about 6 are needed for 40 tasks."""


class Spectrum(NamedTuple):
    """Singular values s and left singular vectors V of a Jacobian with Gramian V diag(s^2) V'."""

    values: Float[Array, " T"]
    """In descending order."""
    vectors: Float[Array, "T T"]
    """Column k belongs to `values[k]`."""
    rank: Int[Array, ""]
    """Number of values that are not 0 or rounding."""


def spectrum(gramian: Float[Array, "T T"], present: Bool[Array, " T"]) -> Spectrum:
    """Returns the singular values and vectors of the Jacobian that has this Gramian."""
    cosines, norms, inside = solvers.unit(gramian, present)
    squares, vectors = jnp.linalg.eigh(jnp.where(inside[:, None] & inside, cosines, 0.0))
    resolved = squares > squares[-1] * inside.sum() * jnp.finfo(jnp.float32).eps
    roots = jnp.sqrt(jnp.where(resolved, squares, 0.0))
    order = jnp.argsort(jnp.where(inside, -norms, jnp.inf))
    # J' = Q R: any R with R'R the Gramian has the singular values of J.
    factor = roots[:, None] * vectors.T * jnp.where(inside, norms, 0.0)
    columns, rotation = _orthogonalize(factor[:, order])
    values = jnp.linalg.norm(columns, axis=0)
    ranked = jnp.argsort(-values)
    back = jnp.argsort(order)
    return Spectrum(values[ranked], rotation[back][:, ranked], resolved.sum())


def _orthogonalize(columns: Float[Array, "T T"]) -> tuple[Float[Array, "T T"], Float[Array, "T T"]]:
    """Returns (columns V, V) with a rotation V after which the columns are orthogonal."""
    size = columns.shape[0]
    if size == 1:
        return columns, jnp.eye(1)
    rounds = jnp.asarray(_rounds(size))
    tolerance = size * float(jnp.finfo(jnp.float32).eps)
    padded = jnp.pad(jnp.concatenate([columns, jnp.eye(size)]), ((0, 0), (0, size % 2)))

    def rotate(stacked: Array, pairs: Array) -> tuple[Array, Array]:
        first, second = pairs
        a, b = stacked[:, first], stacked[:, second]
        inner = jnp.sum(a[:size] * b[:size], axis=0)
        square_a, square_b = (jnp.sum(x[:size] ** 2, axis=0) for x in (a, b))
        bound = jnp.sqrt(square_a) * jnp.sqrt(square_b)
        turns = jnp.abs(inner) > tolerance * bound
        safe = jnp.where(turns, inner, 1.0)
        ratio = (square_b - square_a) / (2 * safe)
        tangent = jnp.where(ratio < 0, -1.0, 1.0) / (jnp.abs(ratio) + jnp.sqrt(1 + ratio**2))
        tangent = jnp.where(turns, tangent, 0.0)
        cosine = jax.lax.rsqrt(1 + tangent**2)
        sine = cosine * tangent
        stacked = stacked.at[:, first].set(cosine * a - sine * b)
        return stacked.at[:, second].set(sine * a + cosine * b), turns.any()

    def sweep(carry: tuple) -> tuple:
        stacked, _, count = carry
        stacked, turned = jax.lax.scan(rotate, stacked, rounds)
        return stacked, turned.any(), count + 1

    going = lambda carry: carry[1] & (carry[2] < SWEEPS)
    stacked, _, _ = jax.lax.while_loop(going, sweep, (padded, jnp.asarray(True), 0))
    return stacked[:size, :size], stacked[size:, :size]


def _rounds(size: int) -> np.ndarray:
    """[rounds, 2, pairs]: all pairs of columns, in rounds of pairs that share none."""
    size += size % 2
    ring, rounds = list(range(1, size)), []
    for _ in ring:
        table = [0, *ring]
        rounds.append([table[: size // 2], table[: size // 2 - 1 : -1]])
        ring = ring[1:] + ring[:1]
    return np.array(rounds)
