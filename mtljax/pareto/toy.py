"""Problem of two losses whose Pareto front is known, to measure how exactly solvers reach it."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import scipy.optimize
from jaxtyping import Array, Float

from mtljax.balancing import Balancer, rays
from mtljax.balancing.base import combine_rows
from mtljax.balancing.matrix import plain_signals

Shape = Literal["convex", "concave"]
"""Shape of the front."""
GRID = 2001
"""Points of the front among which the nearest one is searched, before it is refined."""


@dataclasses.dataclass(frozen=True)
class Toy:
    """Losses L_t = g(|x - c_t|^2) with two centers at -u and u, u = (1, ..., 1) / sqrt(n).

    The Pareto-optimal x are those between the centers, x = a u with a from -1 to 1. With g(z) = z
    the front is convex (Schaffer); with g(z) = 1 - exp(-z) it is concave (Fonseca and Fleming), and
    linear scalarization reaches its ends only.

    Example:
      >>> Toy("convex").point([1.0, 1.0]).tolist()
      [1.0, 1.0]
      >>> Toy("concave").point([1.0, 3.0]).round(3).tolist()
      [0.866, 0.289]
    """

    shape: Shape = "concave"
    """Shape of the front."""
    size: int = 10
    """Number of parameters."""

    def losses(self, x: Float[Array, " n"]) -> Float[Array, "2"]:
        """Losses at a parameter vector."""
        unit = jnp.ones(self.size) / np.sqrt(self.size)
        squares = jnp.stack([jnp.sum((x + unit) ** 2), jnp.sum((x - unit) ** 2)])
        return squares if self.shape == "convex" else -jnp.expm1(-squares)

    def front(self, a: Float[np.ndarray, "*N"] | float) -> Float[np.ndarray, "*N 2"]:
        """Losses at x = a u, on the front for a from -1 to 1."""
        squares = np.stack([(np.asarray(a) + 1) ** 2, (np.asarray(a) - 1) ** 2], -1)
        return squares if self.shape == "convex" else -np.expm1(-squares)

    def point(self, preference: Sequence[float]) -> Float[np.ndarray, "2"]:
        """Point of the front with equal weighted losses."""
        first, second = preference
        gap = lambda a: float(self.front(a) @ (first, -second))
        return self.front(scipy.optimize.brentq(gap, -1, 1, xtol=1e-14))

    def linear_point(self, preference: Sequence[float]) -> Float[np.ndarray, "2"]:
        """Point of the front with the least weighted sum of losses."""
        return self.front(self._nearest(lambda point: point @ np.asarray(preference)))

    def distance(self, losses: Float[np.ndarray, "2"]) -> float:
        """Distance of losses from the front."""
        apart = lambda point: np.linalg.norm(point - losses, axis=-1)
        return float(apart(self.front(self._nearest(apart))))

    def _nearest(self, value: Callable[[np.ndarray], Any]) -> float:
        """The a of the point of the front with the least value."""
        grid = np.linspace(-1, 1, GRID)
        best = grid[np.argmin(value(self.front(grid)))]
        around = np.clip([best - 2 / (GRID - 1), best + 2 / (GRID - 1)], -1, 1)
        found = scipy.optimize.minimize_scalar(
            lambda a: value(self.front(a)),
            bounds=around,
            method="bounded",
            options={"xatol": 1e-12},
        )
        return min((best, found.x), key=lambda a: value(self.front(a)))

    def descend(
        self,
        balancer: Balancer,
        preferences: Float[np.ndarray, "K 2"],
        *,
        steps: int = 2000,
        learning_rate: float = 0.1,
        seed: int = 0,
    ) -> Float[np.ndarray, "K 2"]:
        """Losses after gradient descent for all rays in one program, from the same random start.

        Args:
          balancer: A balancer that works on a plain Jacobian.
          preferences: Rays, with mean 1.
          steps: Number of updates; the learning rate falls to 0 as a cosine.
        """
        start = 0.5 * jax.random.normal(jax.random.key(seed), (self.size,))
        present = jnp.ones(2, bool)

        def train(preference: Float[Array, "2"]) -> Float[Array, "2"]:
            def update(step: Array, carry: tuple) -> tuple:
                x, state = carry
                jacobian = jax.jacrev(self.losses)(x)
                signals = plain_signals(balancer, jacobian, self.losses(x), present)
                signals = signals._replace(preference=preference, step=step)
                key = jax.random.fold_in(jax.random.key(seed), step)
                direction, state = balancer.combine(signals, state, key)
                if balancer.gives_weights:
                    direction = combine_rows(direction, jacobian)
                rate = learning_rate * (1 + jnp.cos(jnp.pi * step / steps)) / 2
                return x - rate * direction, state

            carry = start, balancer.init(2, start)
            return self.losses(jax.lax.fori_loop(0, steps, update, carry)[0])

        run = jax.jit(jax.vmap(train, axis_name=rays.AXIS))
        return np.asarray(run(jnp.asarray(preferences, jnp.float32)), float)
