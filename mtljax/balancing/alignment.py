"""Methods that straighten the gradients' geometry: conditioning, norms, angles."""

import jax.numpy as jnp
from jaxtyping import Array

from mtljax.balancing import solvers
from mtljax.balancing.base import (
    TINY,
    Balancer,
    Combined,
    Needs,
    Signals,
    State,
    stateless,
    with_spec,
)


@with_spec
def aligned_mtl(scale: str = "min") -> Balancer:
    """Aligned-MTL: the gradients made orthogonal and of equal size, as near as can be, then summed.

    With G = V diag(s^2) V', the weights are sigma V diag(1 / s) V' 1: the gradients' principal
    components keep their directions and all get the size sigma. Components below float32's
    resolution are left out.

    Convention: the sum, as in the paper's code and LibMTL (TorchJD: the mean); the heads receive
    their own loss.

    Args:
      scale: sigma: "min" is the smallest s, "median" the median, "rmse" sqrt(mean(s^2)); the paper
        and LibMTL take the smallest.

    References:
      Senushkin et al., 2023, arXiv:2305.19000
    """
    if scale not in ("min", "median", "rmse"):
        raise ValueError(f"scale must be 'min', 'median' or 'rmse', not {scale!r}")

    def combine(signals: Signals, state: State, key: Array) -> Combined:
        size = signals.gramian.shape[0]
        largest = jnp.maximum(jnp.max(jnp.diagonal(signals.gramian)), TINY)
        squares, vectors = jnp.linalg.eigh(signals.gramian / largest)
        count = jnp.maximum(signals.present.sum(), 1)
        kept = squares > squares[-1] * count * jnp.finfo(jnp.float32).eps
        singular = jnp.sqrt(jnp.where(kept, squares, 1.0))
        first = size - kept.sum()  # eigenvalues ascend
        if scale == "min":
            sigma = singular[first]
        elif scale == "median":
            sigma = singular[first + (kept.sum() - 1) // 2]
        else:
            sigma = jnp.sqrt(jnp.sum(jnp.where(kept, squares, 0.0)) / jnp.maximum(kept.sum(), 1))
        part = solvers.matvec(vectors.T, signals.present.astype(jnp.float32))
        weights = solvers.matvec(vectors, jnp.where(kept, sigma / singular * part, 0.0))
        return jnp.where(signals.present, weights, 0.0), state

    return Balancer(init=stateless, combine=combine, needs=Needs.GRAMIAN)


@with_spec
def config() -> Balancer:
    """ConFIG: the direction at equal angles to all gradients, as long as their projections on it.

    With U the unit gradients, the direction is pinv(U) 1 at unit length, times sum_t <g_t, .>: no
    task conflicts with it, whatever its scale.

    Convention: equal target cosines; the length is the sum of the gradients' projections; a task
    without gradient is left out; the heads receive their own loss.

    References:
      Liu, Chu and Thuerey, 2024, arXiv:2408.11104
    """

    def combine(signals: Signals, state: State, key: Array) -> Combined:
        cosines, norms, inside = solvers.unit(signals.gramian, signals.present)
        equal = inside.astype(jnp.float32)
        inverse = jnp.where(inside, solvers.pseudo_solve(cosines, equal, inside), 0.0)
        reach = solvers.matvec(cosines, inverse)  # <unit gradient, direction>
        square = jnp.dot(inverse, reach)
        length = jnp.sum(jnp.where(inside, norms * reach, 0.0))
        found = square > 1e-12
        weights = inverse * length / jnp.where(found, square, 1.0) / norms
        return jnp.where(found & inside, weights, 0.0), state

    return Balancer(init=stateless, combine=combine, needs=Needs.GRAMIAN)


@with_spec
def ntkmtl(exponent: float = 0.5) -> Balancer:
    """NTKMTL: a task that would converge faster, by its neural tangent kernel, gets less weight.

    Task t's kernel over a batch taken as one sample is the number |g_t|^2, so the weights are
    (sum_s |g_s|^2 / |g_t|^2)^exponent.

    Convention: the paper's n = 1, that of its experiments; its code multiplies the shared gradient
    by T besides. A task without gradient gets weight 0. The heads receive their own loss.

    Args:
      exponent: 1 / 2 in the paper.

    References:
      Qin et al., 2025, arXiv:2510.18258
    """

    def combine(signals: Signals, state: State, key: Array) -> Combined:
        square = jnp.diagonal(signals.gramian)
        square = square / jnp.maximum(jnp.max(square), TINY)
        inside = signals.present & (square > 0)
        total = jnp.sum(jnp.where(inside, square, 0.0))
        weights = (total / jnp.where(inside, square, 1.0)) ** exponent
        return jnp.where(inside, weights, 0.0), state

    return Balancer(init=stateless, combine=combine, needs=Needs.GRAMIAN)
