"""A preference over the tasks."""

import dataclasses
from collections.abc import Sequence

import jax.numpy as jnp
from jaxtyping import Array, PyTree

from mtljax.balancing import base
from mtljax.balancing.combinators.wrapping import around, refuse_balancer


@base.with_spec
def preferred(balancer: base.Balancer, preference: Sequence[float]) -> base.Balancer:
    """A balancer with a preference over the tasks: larger numbers favor a task.

    The preference p is scaled to mean 1 over the present tasks. With it,
    - `upgrad` sums the projections of p_t g_t, `dualproj` projects sum_t p_t g_t, `pcgrad` and
      `gradvac` weigh the changed gradients by p, and `aligned_mtl`, `ntkmtl` the aligned ones;
    - `cagrad`, `imgrad` and `sdmgrad` start from the mean of p_t g_t;
    - `config` and `imtl_g` (`imtl`) have cosines or projections in proportion to p;
    - `nash_mtl` and `fairgrad` maximize sum_t p_t u(<g_t, d>): (G w)_t = (p_t / w_t)^(1 / alpha);
    - `consmtl` does as `fairgrad`; `pivrg` and `dibs_mtl` multiply their shares or rates by p;
    - `epo`, `pmtl`, `pmgda`, `ferero` and `hypervolume` take it as the preference of a front;
    - `mgda` gives gains <g_t, d> in proportion to p, the min-norm point of the g_t / p_t;
    - `gradnorm` has target norms in proportion to p;
    - scalarizations and `igb` weigh the losses, or their logarithms, by p.

    Convention: that of the balancer. It has no meaning for methods that select gradients or values
    (`krum`, `graddrop`, `trimmed_mean`), learn their weights from the losses (`uw`, `dwa`, ...) or
    from single steps (`modo`, `moco`, ...): put `fixed` before them with `chain` instead.

    Args:
      balancer: A balancer that reads the preference.
      preference: [T] numbers >= 0, not all 0.

    References:
      Quinton and Rey, 2024, arXiv:2406.16232 (the preference vector of TorchJD)
    """
    values = tuple(float(p) for p in preference)
    if not balancer.prefers:
        reason = "has no preference; put a weighting before it, fixed:2,1+NAME"
        refuse_balancer("preferred", balancer, reason)
    if min(values, default=0.0) < 0 or not 0 < sum(values) < float("inf"):
        raise ValueError(f"preferred: preferences must be finite, >= 0, not all 0, not {values}")

    def init(num_tasks: int, shared: PyTree) -> base.State:
        if len(values) != num_tasks:
            raise ValueError(f"preferred: {len(values)} numbers {values} for {num_tasks} tasks")
        inner = balancer.init(num_tasks, shared)
        return {"balancer": inner, "preference": jnp.asarray(values, jnp.float32)}

    def wrap(inner: base.Balancer) -> base.Balancer:
        def combine(signals: base.Signals, state: base.State, key: Array) -> base.Combined:
            signals = signals._replace(preference=state["preference"])
            combined, after = inner.combine(signals, state["balancer"], key)
            return combined, {**state, "balancer": after}

        return around(inner, init=init, combine=combine, prefers=False)

    return dataclasses.replace(
        wrap(balancer), between=None if balancer.between is None else wrap(balancer.between)
    )
