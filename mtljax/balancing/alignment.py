"""Methods that correct the conditioning, norms or angles of the task gradients."""

import functools

import jax.numpy as jnp
from jaxtyping import Array

from mtljax.balancing import base, solvers
from mtljax.balancing.jacobi import spectrum

_aligning = functools.partial(
    base.Balancer, init=base.stateless, needs=base.Needs.GRAMIAN, prefers=True
)


@base.with_spec
def aligned_mtl(scale: str = "min") -> base.Balancer:
    """Aligned-MTL: sum of the nearest orthogonal gradients of equal norm.

    With G = V diag(s^2) V', the weights are sigma V diag(1 / s) V' 1: the gradients' principal
    components get norm sigma. If gradients are linearly dependent, the components with s = 0 are
    dropped.

    Convention: the sum, as in the paper's code and LibMTL (TorchJD: the mean).

    Args:
      scale: sigma: "min" (smallest s; paper, LibMTL), "median", or "rmse", sqrt(mean(s^2)).

    References:
      Senushkin et al., 2023, arXiv:2305.19000
    """
    if scale not in ("min", "median", "rmse"):
        raise ValueError(f"scale must be 'min', 'median' or 'rmse', not {scale!r}")

    def combine(signals: base.Signals, state: base.State, key: Array) -> base.Combined:
        singular, vectors, rank = spectrum(signals.gramian, signals.present)
        inside = jnp.arange(singular.shape[0]) < rank
        if scale == "min":
            sigma = singular[rank - 1]
        elif scale == "median":
            sigma = singular[rank // 2]
        else:
            largest = jnp.maximum(singular[0], base.TINY)
            square = jnp.sum(jnp.where(inside, (singular / largest) ** 2, 0.0))
            sigma = largest * jnp.sqrt(square / jnp.maximum(rank, 1))
        part = solvers.matvec(vectors.T, base.preference(signals))
        shares = jnp.where(inside, sigma / jnp.where(inside, singular, 1.0) * part, 0.0)
        weights = solvers.matvec(vectors, shares)
        return jnp.where(signals.present, weights, 0.0), state

    return _aligning(combine=combine)


@base.with_spec
def config() -> base.Balancer:
    """ConFIG: direction at equal angles to all gradients, with the summed projections as length.

    With U the unit gradients, the direction is pinv(U) 1 at unit length, times sum_t <g_t, .>. It
    conflicts with no task, at any scale of the gradients.

    Convention: equal target cosines; tasks with zero gradient are ignored.

    References:
      Liu, Chu and Thuerey, 2024, arXiv:2408.11104
    """

    def combine(signals: base.Signals, state: base.State, key: Array) -> base.Combined:
        cosines, norms, inside = solvers.unit(signals.gramian, signals.present)
        target = jnp.where(inside, base.preference(signals), 0.0)
        inverse = jnp.where(inside, solvers.pseudo_solve(cosines, target, inside), 0.0)
        reach = solvers.matvec(cosines, inverse)  # <unit gradient, direction>
        square = solvers.dot(inverse, reach)
        length = jnp.sum(jnp.where(inside, norms * reach, 0.0))
        exists = square > 1e-12
        weights = inverse * length / jnp.where(exists, square, 1.0) / norms
        return jnp.where(exists & inside, weights, 0.0), state

    return _aligning(combine=combine)


@base.with_spec
def ntkmtl(exponent: float = 0.5) -> base.Balancer:
    """NTKMTL: smaller weights for tasks that converge faster by their neural tangent kernel.

    Task t's kernel over a batch taken as one sample is the number |g_t|^2, so the weights are
    (sum_s |g_s|^2 / |g_t|^2)^exponent.

    Convention: the paper's n = 1, as in its experiments; its code also multiplies the shared
    gradient by T. A task with zero gradient gets weight 0.

    Args:
      exponent: 1 / 2 in the paper.

    References:
      Qin et al., 2025, arXiv:2510.18258
    """

    def combine(signals: base.Signals, state: base.State, key: Array) -> base.Combined:
        square = jnp.diagonal(signals.gramian)
        square = square / jnp.maximum(jnp.max(square), base.TINY)
        inside = signals.present & (square > 0)
        total = jnp.sum(jnp.where(inside, square, 0.0))
        weights = (total / jnp.where(inside, square, 1.0)) ** exponent
        return jnp.where(inside, base.preference(signals) * weights, 0.0), state

    return _aligning(combine=combine)
