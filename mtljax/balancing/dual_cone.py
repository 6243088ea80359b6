"""Projections on the dual cone: directions that conflict with no task."""

import jax
import jax.numpy as jnp
from jaxtyping import Array

from mtljax.balancing import base, solvers


@base.with_spec
def upgrad() -> base.Balancer:
    """UPGrad: sum of the task gradients, each projected on the dual cone.

    Each g_t is projected on the dual cone {d: <g_s, d> >= 0 for all s}; the update is the sum of
    the projections, so no task's loss rises to first order.

    Convention: the sum, as in LibMTL; the paper and TorchJD use the mean, T times less.

    References:
      Quinton and Rey, 2024, arXiv:2406.16232
    """

    def combine(signals: base.Signals, state: base.State, key: Array) -> base.Combined:
        each = jnp.diag(signals.present.astype(jnp.float32))
        solve = jax.vmap(solvers.dual_cone, in_axes=(None, 0, None))
        return solve(signals.gramian, each, signals.present).sum(0), state

    return base.Balancer(init=base.stateless, combine=combine, needs=base.Needs.GRAMIAN)


@base.with_spec
def dualproj() -> base.Balancer:
    """DualProj: projection of the summed gradients on the dual cone.

    The update is the projection of sum_t g_t on the dual cone {d: <g_s, d> >= 0 for all s}.

    Convention: the sum; TorchJD projects the mean, T times less.

    References:
      Lopez-Paz and Ranzato, 2017, arXiv:1706.08840; Quinton and Rey, 2024, arXiv:2406.16232
    """

    def combine(signals: base.Signals, state: base.State, key: Array) -> base.Combined:
        equal = signals.present.astype(jnp.float32)
        return solvers.dual_cone(signals.gramian, equal, signals.present), state

    return base.Balancer(init=base.stateless, combine=combine, needs=base.Needs.GRAMIAN)
