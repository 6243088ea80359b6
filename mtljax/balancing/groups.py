"""Methods that group tasks."""

import functools

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PyTree

from mtljax.balancing import base


@base.with_spec
def go4align(groups: int = 2, step_size: float = 1e-4) -> base.Balancer:
    """GO4Align: one weight per group of tasks with similar risk.

    A distribution over the tasks is updated by p_t <- p_t exp(-step_size L_t) and normalized. The
    indicators (sum_s L_s / L_t) p_t bring the losses to one scale; they are clustered by k-means,
    and each task's weight is the mean of its cluster.

    Convention: as in the paper's code, but with optimal clusters (dynamic programming in one
    dimension; there Lloyd's algorithm from random starts). The heads receive the weighted loss.

    Args:
      groups: Number of clusters, at most the number of present tasks.
      step_size: Step size of the update of p.

    References:
      Shen et al., 2024, arXiv:2404.06486
    """
    if groups < 1:
        raise ValueError(f"groups must be >= 1, not {groups}")

    def init(num_tasks: int, shared: PyTree) -> base.State:
        return {"log_share": jnp.zeros(num_tasks)}

    def combine(signals: base.Signals, state: base.State, key: Array) -> base.Combined:
        present = signals.present
        losses = jnp.maximum(signals.losses, base.LEAST_LOSS)
        log_share = jnp.where(present, state["log_share"] - step_size * losses, state["log_share"])
        # Only ratios of p and of the scale among the present tasks matter.
        top = jnp.max(jnp.where(present, log_share, -jnp.inf))
        share = jnp.where(present, jnp.exp(log_share - top), 0.0)
        share = share / jnp.maximum(share.sum(), base.TINY)
        total = jnp.sum(jnp.where(present, losses, 0.0))
        indicators = jnp.where(present, total / losses * share, 0.0)
        weights = cluster_means(indicators, present, groups)
        return jnp.where(present, weights, 0.0), {"log_share": log_share}

    return base.Balancer(init=init, combine=combine, needs=base.Needs.LOSSES, heads="weighted")


def cluster_means(
    values: Float[Array, " T"], present: Bool[Array, " T"], groups: int
) -> Float[Array, " T"]:
    """Replaces each present value by the mean of its cluster, for optimal clusters.

    In one dimension the clusters are runs of the sorted values, so the best split of the first j
    values into k runs is the best split of the first i into k - 1 runs plus the run from i to j.
    """
    size = values.shape[0]
    order = jnp.argsort(jnp.where(present, values, jnp.inf))
    mass = present[order].astype(values.dtype)
    scale = jnp.maximum(jnp.max(jnp.where(present, jnp.abs(values), 0.0)), base.TINY)
    line = jnp.where(present, values / scale, 0.0)[order]

    run = (jnp.arange(size)[:, None] <= jnp.arange(size)[None, :]).astype(values.dtype)
    inside = run[:, :, None] * run[None, :, :]  # [i, m, j]: i <= m <= j
    over_run = functools.partial(jnp.einsum, "imj,m->ij", precision="highest")
    count = over_run(inside, mass)  # run from i to j
    mean = over_run(inside, mass * line) / jnp.maximum(count, 1)
    spread = (line[None, :, None] - mean[:, None, :]) ** 2 * mass[None, :, None]
    cost = jnp.where(run > 0, jnp.sum(inside * spread, axis=1), jnp.inf)

    best, starts = cost[0], []
    for _ in range(min(groups, size) - 1):
        # [i, j]: the last run is from i to j, after the best split of the first i.
        split = jnp.concatenate([jnp.full((1, size), jnp.inf), best[:-1, None] + cost[1:]])
        split = split.at[0].set(best)  # one cluster fewer, if it is as good
        starts.append(jnp.argmin(split, axis=0))
        best = jnp.min(split, axis=0)

    result = jnp.zeros(size)
    end = jnp.asarray(size - 1)
    for table in [*reversed(starts), jnp.zeros(size, jnp.int32)]:
        start = table[jnp.maximum(end, 0)]
        covered = (jnp.arange(size) >= start) & (jnp.arange(size) <= end) & (end >= 0)
        result = jnp.where(covered, mean[start, jnp.maximum(end, 0)], result)
        end = start - 1
    return scale * jnp.zeros(size).at[order].set(result)
