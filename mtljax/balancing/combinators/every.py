"""Weights that are computed at some updates only."""

import functools

import jax.numpy as jnp
from jaxtyping import Array, PyTree

from mtljax.balancing import base
from mtljax.balancing.combinators.wrapping import around, refuse_balancer


@base.with_spec
def every(balancer: base.Balancer, period: int) -> base.Balancer:
    """A balancer whose weights are computed at every `period`-th update and used until the next.

    The updates in between cost one backward pass, like those of `ew`. A balancer that reads only
    losses saves its trial steps, if it takes any.

    Convention: that of the balancer. The first update, at step 0, computes weights. A task that is
    absent where they are computed keeps its earlier weight, at first the mean of the rest; so
    do all tasks if that update is skipped because it is not finite. Under `vmap` all elements
    compute weights where one of them is due, which is the same update for states of one step. With
    `@samo@every` the updates in between are at the parameters themselves, with `@every@samo` at
    the perturbed ones.

    Args:
      balancer: A balancer that gives weights and does not learn from the losses after each update.
      period: Number of updates from one computation of the weights to the next.

    References:
      Xiao et al., 2024, arXiv:2412.10961 (PSMGD)
    """
    refuse = functools.partial(refuse_balancer, "every", balancer)
    if period < 1:
        raise ValueError(f"every: period must be >= 1, not {period}")
    if not balancer.gives_weights:
        refuse("gives a direction, not weights that later updates could use")
    if balancer.observe is not None:
        refuse("learns from the losses after each update")
    if balancer.period > 1:
        refuse(f"already computes its weights only once in {balancer.period} updates")
    if period == 1:
        return balancer
    fields = ("shared", "heads") if balancer.heads == "given" else ("shared",)

    def init(num_tasks: int, shared: PyTree) -> base.State:
        shape = (balancer.samples, num_tasks) if balancer.samples > 1 else (num_tasks,)
        weights = {field: jnp.ones(shape) for field in fields}
        known = jnp.zeros(shape, bool)
        return {"balancer": balancer.init(num_tasks, shared), "known": known, **weights}

    def output(signals: base.Signals, state: base.State) -> base.Combined:
        known = state["known"]

        def of_present(weights: Array) -> Array:
            mean = jnp.where(known.any(), base.mean_present(weights, known), 1.0)
            return jnp.where(signals.present, jnp.where(known, weights, mean), 0.0)

        shared, *heads = (of_present(state[field]) for field in fields)
        return (base.WithHeads(shared, *heads) if heads else shared), state

    def combine(signals: base.Signals, state: base.State, key: Array) -> base.Combined:
        combined, after = balancer.combine(signals, state["balancer"], key)
        values = combined if isinstance(combined, base.WithHeads) else (combined,)
        new = {
            field: jnp.where(signals.present, value, state[field])
            for field, value in zip(fields, values, strict=True)
        }
        known = state["known"] | signals.present
        return output(signals, {"balancer": after, "known": known, **new})

    between = base.Balancer(
        init=init,
        combine=lambda signals, state, key: output(signals, state),
        needs=base.Needs.LOSSES,
        heads=balancer.heads,
        samples=balancer.samples,
        alignment=balancer.alignment,
    )
    return around(balancer, init=init, combine=combine, period=period, between=between)
