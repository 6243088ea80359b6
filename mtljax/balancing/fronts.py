"""Methods for a Pareto front in which each network depends on all networks."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PyTree

from mtljax.balancing import base, solvers
from mtljax.balancing import rays as front
from mtljax.balancing.preferences import direction_of_ray

MARGIN = 1e-6
"""Violation of a constraint of PMTL above which it is active; less is rounding."""


@base.with_spec
def pmtl(rays: int = 5, warmup: int = 1000, normalize: bool = False) -> base.Balancer:
    """PMTL: descent within the part of the loss space that is nearest to the preference's ray.

    With u_k the unit vectors of the rays, proportional to 1 / p_k, the losses belong to the ray
    with the largest <u_k, L>. Where this is not the ray u of the preference, the constraint
    <u_k - u, L> <= 0 is active. The weights are those of `mgda` for the gradients of the losses and
    of the active constraints. Before the losses belong to the ray for the first time, but for at
    most `warmup` steps, they are those for the active constraints only. So it reaches some point of
    the front near the ray.

    Convention: the paper, where u_k are the preferences, not the inverse. Its code ends the first
    phase after two epochs. The heads receive the unweighted loss, since weights can be negative.

    Args:
      rays: Number of rays of the front, those of `mtljax.pareto.rays`; use the same number for all.
      warmup: Largest number of steps of the first phase.
      normalize: Scale the weights to sum_t |w_t| = T, as the code for Multi-MNIST.

    References:
      Lin et al., 2019, arXiv:1912.12854
    """
    if rays < 1 or warmup < 0:
        raise ValueError(f"needs rays >= 1 and warmup >= 0, not {rays}, {warmup}")

    def init(num_tasks: int, shared: PyTree) -> base.State:
        return {"found": jnp.zeros((), bool)}

    def combine(signals: base.Signals, state: base.State, key: Array) -> base.Combined:
        present = signals.present
        size = len(present)
        others = jnp.asarray(front.rays(size, rays), jnp.float32)
        units = jax.vmap(lambda other: direction_of_ray(other, present))(others)
        change = units - direction_of_ray(base.preference(signals), present)
        losses = jnp.where(present, signals.losses, 0.0)
        losses = losses / jnp.maximum(jnp.linalg.norm(losses), base.TINY)
        active = solvers.matvec(change, losses) > MARGIN
        found = state["found"] | (present.any() & ~active.any())
        searches = ~found & (signals.step < warmup)
        mixed = jnp.concatenate([jnp.eye(size), change])
        extended = solvers.matvec(mixed, solvers.matvec(signals.gramian, mixed.T))
        weights = solvers.min_norm(extended, jnp.append(present & ~searches, active))
        weights = solvers.matvec(mixed.T, weights)
        if normalize:
            total = jnp.maximum(jnp.abs(weights).sum(), base.TINY)
            weights = weights * present.sum() / total
        return jnp.where(present, weights, 0.0), {"found": found}

    return base.Balancer(init=init, combine=combine, needs=base.Needs.GRAMIAN, prefers=True)


@base.with_spec
def hypervolume(
    reference: Sequence[float] | None = None, warmup: int = 100, rays: int | None = None
) -> base.Balancer:
    """Hypervolume gradient: ascent of the volume that all networks of the front dominate together.

    The losses of all networks are sorted into fronts of mutually nondominated points. The weights
    are the derivatives of the volume of the network's front by its losses, negated and scaled to
    norm 1. All rays train side by side; a separate network is a front of one, with weights
    proportional to the product of the other tasks' gains.

    Convention: sorting and scaling as in the paper (HIGA-MO). The reference point is at least 1.1
    times the largest losses of any network now (LibMOON) and in the first step. For `warmup`
    steps, the weights are the preference, scaled likewise: networks with the same seed would
    otherwise remain equal, while those of the paper start from different weights. The heads receive
    the weighted loss.

    Args:
      reference: [T] losses of the reference point; None: from the first step.
      warmup: Number of steps of linear scalarization.
      rays: Number of networks that must train side by side; None: any.

    References:
      Deist et al., 2021, arXiv:2102.04523; Wang et al., 2017, doi:10.1007/978-3-319-54157-0_44
    """
    point = None if reference is None else tuple(float(x) for x in reference)
    if warmup < 0:
        raise ValueError(f"warmup must be >= 0, not {warmup}")
    if rays is not None and rays < 1:
        raise ValueError(f"rays must be >= 1, not {rays}")

    def init(num_tasks: int, shared: PyTree) -> base.State:
        if point is not None and len(point) != num_tasks:
            raise ValueError(f"{len(point)} numbers {point} for {num_tasks} tasks")
        return {"reference": jnp.zeros(num_tasks) if point is None else jnp.asarray(point)}

    def combine(signals: base.Signals, state: base.State, key: Array) -> base.Combined:
        present, preference = signals.present, base.preference(signals)
        points, index = front.of_all_rays(jnp.where(present, signals.losses, 0.0))
        if rays not in (None, len(points)) and len(points) > 1:  # one: traced for its cost
            raise ValueError(
                f"hypervolume:rays={rays} trains {rays} networks side by side, not {len(points)}; "
                "train the front anew in another --workdir"
            )
        is_finite = jnp.isfinite(points).all(1, keepdims=True)
        now = 1.1 * jnp.max(jnp.where(is_finite, points, 0.0), axis=0)
        known = state["reference"]
        known = jnp.where(present & (known == 0) & (point is None), now, known)
        limit = jnp.where(present, jnp.maximum(jnp.maximum(known, now), base.LEAST_LOSS), 1.0)
        # A network whose losses are not finite dominates no volume, and does not affect the rest.
        slopes = _volume_slopes(jnp.where(is_finite, points, limit), index, limit)
        weights = jnp.where(signals.step < warmup, preference, -slopes)
        weights = jnp.where(present, weights, 0.0)
        weights = weights / jnp.maximum(jnp.max(jnp.abs(weights)), base.TINY)
        weights = weights / jnp.maximum(jnp.linalg.norm(weights), base.TINY)
        return weights, {"reference": known}

    return base.Balancer(
        init=init,
        combine=combine,
        needs=base.Needs.LOSSES,
        heads="weighted",
        prefers=True,
        couples=True,
    )


def _volume_slopes(
    points: Float[Array, "K T"], index: Int[Array, ""] | int, reference: Float[Array, " T"]
) -> Float[Array, " T"]:
    """Derivatives of the hypervolume of a point's front by its coordinates."""
    rank = front_ranks(points)
    same = rank == rank[index]

    def volume(own: Float[Array, " T"]) -> Float[Array, ""]:
        moved = jnp.where((jnp.arange(len(points)) == index)[:, None], own, points)
        moved = jnp.where(same[:, None], moved, reference)
        return front.hypervolume(moved / reference, jnp.ones_like(reference), jnp)

    return jax.grad(volume)(points[index])


def front_ranks(points: Float[Array, "K T"]) -> Int[Array, " K"]:
    """Rank of each point in nondominated sorting: 0 for the first front."""
    no_worse = (points[:, None] <= points[None]).all(-1)
    dominates = no_worse & ~no_worse.T
    ranks = jnp.zeros(len(points), int)
    below = lambda _, ranks: jnp.max(jnp.where(dominates, ranks[:, None] + 1, 0), axis=0)
    return jax.lax.fori_loop(0, len(points), below, ranks)
