"""The small convex problems behind the balancers, solved inside the compiled step."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float


def project_simplex(
    point: Float[Array, " T"], present: Bool[Array, " T"]
) -> Float[Array, " T"]:
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


def min_norm(
    gramian: Float[Array, "T T"], present: Bool[Array, " T"], iterations: int = 250
) -> Float[Array, " T"]:
    """argmin over the simplex of w' G w, by accelerated projected gradient with restarts.

    Args:
      gramian: [T, T], positive semi-definite.
      present: [T]; absent entries get weight 0.
      iterations: Bound on the work.
    """
    scale = jnp.max(jnp.diagonal(gramian))
    gram = gramian / jnp.where(scale > 0, scale, 1.0)
    step = 1.0 / jnp.maximum(jnp.abs(gram).sum(1).max(), 1e-30)
    start = present / jnp.maximum(present.sum(), 1)

    def iterate(_, carry):
        weights, look, momentum = carry
        new = project_simplex(look - step * jnp.matmul(gram, look, precision="highest"), present)
        uphill = jnp.dot(look - new, new - weights) > 0
        next_momentum = (1 + jnp.sqrt(1 + 4 * momentum**2)) / 2
        ahead = new + (momentum - 1) / next_momentum * (new - weights)
        return new, jnp.where(uphill, new, ahead), jnp.where(uphill, 1.0, next_momentum)

    return jax.lax.fori_loop(0, iterations, iterate, (start, start, jnp.ones(())))[0]
