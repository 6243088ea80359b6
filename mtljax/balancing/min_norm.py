"""Methods based on the minimum-norm point in the convex hull of the task gradients."""

import functools

import jax.numpy as jnp
from jaxtyping import Array

from mtljax.balancing import base, solvers

_min_norm = functools.partial(
    base.Balancer, init=base.stateless, needs=base.Needs.GRAMIAN, prefers=True
)


@base.with_spec
def mgda(normalize: str = "none") -> base.Balancer:
    """MGDA: the common descent direction of minimum norm.

    The weights on the simplex minimize |sum_t w_t g_t|, which is 0 at a Pareto-stationary point.

    Convention: weights sum to 1. The gradients can be normalized first, as in the paper's code and
    LibMTL; the weights then apply to the normalized gradients.

    Args:
      normalize: "none", "l2" (by the gradient's norm), "loss" or "loss+" (loss times norm).

    References:
      Sener and Koltun, 2018, arXiv:1810.04650; Desideri, 2012
    """
    if normalize not in ("none", "l2", "loss", "loss+"):
        raise ValueError(f"normalize must be 'none', 'l2', 'loss' or 'loss+', not {normalize!r}")

    def combine(signals: base.Signals, state: base.State, key: Array) -> base.Combined:
        gram = signals.gramian
        by = jnp.ones(gram.shape[0])
        if normalize in ("l2", "loss+"):
            by = by * jnp.sqrt(jnp.diagonal(gram))
        if normalize in ("loss", "loss+"):
            by = by * signals.losses
        preference = base.preference(signals)
        by = jnp.where(by > 0, by, 1.0) * jnp.where(preference > 0, preference, 1.0)
        inside = signals.present & (preference > 0)
        weights = solvers.min_norm(gram / by[:, None] / by[None, :], inside)
        return weights / by, state

    return _min_norm(combine=combine)


@base.with_spec
def cagrad(c: float = 0.5, rescale: int = 0) -> base.Balancer:
    """CAGrad: direction near the mean gradient that maximizes the smallest gain of a task.

    With g_0 the mean gradient, d maximizes min_t <g_t, d> over |d - g_0| <= c |g_0|. It is
    g_0 + c |g_0| g_w / |g_w|, where w on the simplex minimizes <g_w, g_0> + c |g_0| |g_w|.

    Convention: the mean, with steps T times smaller than a sum's; not rescaled, as in the paper.

    Args:
      c: Radius, in [0, 1): 0 gives the mean gradient, large values MGDA's direction.
      rescale: 0: no rescaling; 1: division by 1 + c^2, as in the paper's code and LibMTL; 2:
        division by 1 + c.

    References:
      Liu et al., 2021, arXiv:2110.14048
    """
    divisor = _divisor(c, rescale)

    def combine(signals: base.Signals, state: base.State, key: Array) -> base.Combined:
        mean = base.mean_weights(signals)
        lift = solvers.conflict_averse(signals.gramian, mean, c, signals.present)
        return (mean + lift) / divisor, state

    return _min_norm(combine=combine)


@base.with_spec
def imgrad(c: float = 0.5, rescale: int = 0) -> base.Balancer:
    """IMGrad: CAGrad with a trade-off that depends on the imbalance of the tasks.

    With g_0 the mean gradient and kappa its cosine to MGDA's direction, w on the simplex minimizes
    (1.5 - kappa) <g_w, g_0> + kappa c |g_0| |g_w|, and d = g_0 + c |g_0| g_w / |g_w|. The less the
    two directions agree, the more weight the task with the smallest gain has.

    Convention: as in the paper's code; the mean over tasks.

    Args:
      c: Radius, in [0, 1).
      rescale: See `cagrad`; 1 is the paper's code.

    References:
      Zhou et al., 2025, arXiv:2503.08006
    """
    divisor = _divisor(c, rescale)

    def combine(signals: base.Signals, state: base.State, key: Array) -> base.Combined:
        present = signals.present
        scale = jnp.maximum(jnp.max(jnp.diagonal(signals.gramian)), base.TINY)
        gram = signals.gramian / scale
        mean, least = base.mean_weights(signals), solvers.min_norm(gram, present)
        inner = lambda a, b: solvers.dot(a, solvers.matvec(gram, b))
        size = jnp.sqrt(jnp.maximum(inner(mean, mean), 0.0))
        length = jnp.sqrt(jnp.maximum(inner(least, least), 0.0))
        cosine = inner(mean, least) / jnp.maximum(size * length, base.TINY)
        cosine = jnp.clip(cosine, 0.0, 1.0)
        radius = jnp.maximum(c * cosine / (1.5 - cosine), 1e-3)  # avoids a radius of 0
        lift = solvers.conflict_averse(gram, mean, radius, present)
        reach = jnp.sqrt(jnp.maximum(inner(lift, lift), 0.0))
        lift = jnp.where(reach > 0, lift * c * size / jnp.where(reach > 0, reach, 1.0), 0.0)
        return jnp.where(present, mean + lift, 0.0) / divisor, state

    return _min_norm(combine=combine)


def _divisor(c: float, rescale: int) -> float:
    if c < 0 or rescale not in (0, 1, 2):
        raise ValueError(f"needs c >= 0 and rescale in 0, 1, 2, not {c}, {rescale}")
    return (1.0, 1 + c**2, 1 + c)[rescale]
