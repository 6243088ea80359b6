"""Scalarizations: fixed functions of the losses, whose gradients are weighted sums."""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Array, PyTree

from mtljax.balancing import base, solvers

Preference = Sequence[float] | None
"""One number per task; None: equal weights, or a reference of 0."""


@base.with_spec
def ew() -> base.Balancer:
    """Equal weighting (EW): the sum of the losses.

    Convention: the sum, not the mean, as in LibMTL; the heads receive the same loss.
    """
    return _scalarizer(base.preference)


@base.with_spec
def fixed(weights: Sequence[float]) -> base.Balancer:
    """Fixed weights, one per task, in the order of the tasks.

    Convention: not normalized; the heads receive the weighted loss.

    Args:
      weights: [T] finite numbers >= 0, not all 0.
    """
    weights = tuple(float(v) for v in weights)
    _check(weights)
    return _scalarizer(lambda signals: _preference(weights, signals), weights)


@base.with_spec
def si() -> base.Balancer:
    """Scale-invariant loss (SI): sum of the logarithms of the losses, independent of units.

    The weights are 1 / L_t, the gradient of sum_t log L_t.

    Convention: the sum; losses must be >= 0 (1e-20 if less); the heads receive the weighted loss.

    References:
      Navon et al., 2022, arXiv:2202.01017 (as a baseline)
    """

    def combine(signals: base.Signals) -> Array:
        return base.preference(signals) / jnp.maximum(signals.losses, base.LEAST_LOSS)

    return _scalarizer(combine)


@base.with_spec
def gls() -> base.Balancer:
    """Geometric loss strategy (GLS): geometric mean of the losses.

    With M = (prod_t L_t)^(1 / T), the weights are M / (T L_t).

    Convention: the mean of present tasks; losses must be >= 0; the heads receive the weighted loss.

    References:
      Chennupati et al., 2019, arXiv:1904.08492
    """

    def combine(signals: base.Signals) -> Array:
        present, preference = signals.present, base.preference(signals)
        logs = jnp.log(jnp.maximum(signals.losses, base.LEAST_LOSS))
        mean = base.mean_present(preference * logs, present)
        return preference * jnp.exp(mean - logs) / jnp.maximum(present.sum(), 1)

    return _scalarizer(combine)


@base.with_spec
def chebyshev(weights: Preference = None, reference: Preference = None) -> base.Balancer:
    """Chebyshev scalarization: maximum of the weighted losses.

    The objective is max_t p_t (L_t - z_t). Tasks that tie for the maximum share it equally.

    Convention: the heads receive the weighted loss, so only the head of the maximum learns.

    Args:
      weights: [T] preferences p, not normalized; 1 / T each if None.
      reference: [T] ideal losses z; 0 if None.

    References:
      Bowman, 1976; Lin et al., 2024, arXiv:2402.19078, section 2
    """

    def combine(signals: base.Signals) -> Array:
        preference, present = _preference(weights, signals), signals.present
        values = preference * (signals.losses - _point(reference))
        values = jnp.where(present, values, -jnp.inf)
        worst = present & (values == values.max())
        return preference * worst / jnp.maximum(worst.sum(), 1)

    return _scalarizer(combine, weights, reference)


@base.with_spec
def pbi(
    theta: float = 5.0, weights: Preference = None, reference: Preference = None
) -> base.Balancer:
    """Penalty-based boundary intersection (PBI): descent along a ray with a penalty for leaving it.

    With v = L - z and u = p / |p|, the objective is d1 + theta * d2, where d1 = <v, u> is the
    distance along the ray and d2 = |v - d1 u| the distance from it. Weights are
    u_t + theta (v - d1 u)_t / d2 and can be negative. On the ray the penalty has no gradient.

    On `digits`, with the default theta, accuracy is 8 points below equal weighting (91.9 % against
    99.8 %, 3 seeds): weights of both signs, up to about 4, raise the smaller loss until the losses
    are equal. theta=0.5, where no weight is negative, gives 99.7 % (1 seed).

    Convention: the heads receive the weighted loss.

    Args:
      theta: Strength of the penalty.
      weights: [T] preferences p >= 0; equal if None.
      reference: [T] ideal losses z; 0 if None.

    References:
      Zhang and Li, 2007, "MOEA/D", doi:10.1109/TEVC.2007.892759
    """
    if theta < 0:
        raise ValueError(f"theta must be >= 0, not {theta}")

    def combine(signals: base.Signals) -> Array:
        ray = _preference(weights, signals)
        ray = ray / jnp.maximum(jnp.linalg.norm(ray), base.TINY)
        values = jnp.where(signals.present, signals.losses - _point(reference), 0.0)
        scale = jnp.maximum(jnp.max(jnp.abs(values)), base.TINY)  # squares of 1e-30 are 0
        across = values / scale - solvers.dot(values / scale, ray) * ray
        distance = jnp.linalg.norm(across)
        on_ray = distance <= 1e-6  # what is left there is rounding
        return ray + theta * jnp.where(on_ray, 0.0, across / jnp.where(on_ray, 1.0, distance))

    return _scalarizer(combine, weights, reference)


@base.with_spec
def cosmos(penalty: float = 1.0, weights: Preference = None) -> base.Balancer:
    """COSMOS: weighted sum with a penalty on the angle between losses and preference.

    The objective is <p, L> - penalty * cos(p, L).

    Convention: p is fixed. In the paper it is drawn for every batch and is an input of the network,
    which then covers the entire Pareto front. The heads receive the weighted loss.

    Args:
      penalty: The paper's lambda; 0.01 to 8 in its experiments.
      weights: [T] preferences p; 1 / T each if None.

    References:
      Ruchte and Grabocka, 2021, arXiv:2103.13392
    """
    if penalty < 0:
        raise ValueError(f"penalty must be >= 0, not {penalty}")

    def combine(signals: base.Signals) -> Array:
        ray = _preference(weights, signals)
        values = jnp.where(signals.present, signals.losses, 0.0)
        scale = jnp.maximum(jnp.max(jnp.abs(values)), base.LEAST_LOSS)
        values = values / scale
        length = jnp.maximum(jnp.linalg.norm(values), 1.0)  # >= 1 unless all are 0
        unit, ray_unit = values / length, ray / jnp.maximum(jnp.linalg.norm(ray), base.TINY)
        across = ray_unit - solvers.dot(unit, ray_unit) * unit
        return ray - penalty * across / (length * scale)

    return _scalarizer(combine, weights)


@base.with_spec
def stch(
    mu: float = 1.0, weights: Preference = None, reference: Preference = None, warmup: int = 0
) -> base.Balancer:
    """Smooth Chebyshev scalarization (STCH): soft maximum of the weighted losses.

    The objective is mu * log sum_t exp(p_t (L_t - z_t) / mu), so a task's weight is p_t times its
    softmax probability. With `warmup`, as in the paper's multi-task code and LibMTL, the objective
    is sum_t log L_t for that many steps, then T mu log sum_t exp(log(L_t / m_t) / mu), with m_t the
    mean loss of the warm-up (LibMTL: of its last epoch), without `weights` and `reference`.

    Convention: the heads receive the weighted loss.

    Args:
      mu: Smoothness; smaller is closer to the maximum.
      weights: [T] preferences p; 1 / T each if None.
      reference: [T] ideal losses z; 0 if None.
      warmup: Number of warm-up steps; 0 for the plain objective.

    References:
      Lin et al., 2024, arXiv:2402.19078
    """
    if mu <= 0 or warmup < 0:
        raise ValueError(f"needs mu > 0 and warmup >= 0, not {mu}, {warmup}")
    _check(weights)
    _check(reference, positive=False)

    soft_max = lambda values, present: jax.nn.softmax(jnp.where(present, values / mu, -jnp.inf))

    def plain(signals: base.Signals) -> Array:
        preference = _preference(weights, signals)
        values = preference * (signals.losses - _point(reference))
        return preference * soft_max(values, signals.present)

    if not warmup:
        return _scalarizer(plain, weights, reference)

    def init(num_tasks: int, shared: PyTree) -> base.State:
        zeros = {name: jnp.zeros(num_tasks) for name in ("sum", "count")}
        return {**zeros, "steps": jnp.zeros((), jnp.int32)}

    def combine(signals: base.Signals, state: base.State, key: Array) -> base.Combined:
        present, losses = signals.present, jnp.maximum(signals.losses, base.LEAST_LOSS)
        warming = state["steps"] < warmup
        mean = jnp.where(state["count"] > 0, state["sum"] / jnp.maximum(state["count"], 1), 1.0)
        shares = soft_max(jnp.log(losses / jnp.maximum(mean, base.LEAST_LOSS)), present)
        weights = jnp.where(warming, 1.0, present.sum() * shares) / losses
        new = {
            "sum": state["sum"] + jnp.where(warming, signals.losses, 0.0),
            "count": state["count"] + jnp.where(warming, present, 0.0),
            "steps": jnp.minimum(state["steps"] + 1, warmup),
        }
        return jnp.where(present, weights, 0.0), new

    return base.Balancer(init=init, combine=combine, needs=base.Needs.LOSSES, heads="weighted")


def _scalarizer(weigh: Callable[[base.Signals], Array], *per_task: Preference) -> base.Balancer:
    """Balancer with weights `weigh(signals)`; `per_task` arguments must have T entries."""
    for values in per_task:
        _check(values, positive=False)

    def init(num_tasks: int, shared: PyTree) -> base.State:
        for values in per_task:
            if values is not None and len(values) != num_tasks:
                raise ValueError(f"{len(values)} numbers {tuple(values)} for {num_tasks} tasks")
        return ()

    def combine(signals: base.Signals, state: base.State, key: Array) -> base.Combined:
        return jnp.where(signals.present, weigh(signals), 0.0), state

    needs = base.Needs.LOSSES
    return base.Balancer(init=init, combine=combine, needs=needs, heads="weighted", prefers=True)


def _check(values: Preference, positive: bool = True) -> None:
    if values is None:
        return
    values = tuple(float(v) for v in values)
    if not all(abs(v) < float("inf") for v in values):
        raise ValueError(f"weights and references must be finite, not {values}")
    if positive and (min(values, default=0.0) < 0 or not any(values)):
        raise ValueError(f"weights must be finite, >= 0 and not all 0, not {values}")


def _preference(weights: Preference, signals: base.Signals) -> Array:
    """`weights` times the preference of the signals; 1 / T each by default."""
    if weights is None:
        return base.mean_weights(signals)
    return jnp.asarray(weights, jnp.float32) * base.preference(signals)


def _point(reference: Preference) -> jax.Array | float:
    return 0.0 if reference is None else jnp.asarray(reference, jnp.float32)
