"""Loss weightings followed by another balancer."""

import functools

import jax
import jax.numpy as jnp
from jaxtyping import Array, PyTree

from mtljax.balancing import base
from mtljax.balancing.combinators.wrapping import name_of, refuse_balancer, weigh_signals


@base.with_spec
def chain(*balancers: base.Balancer) -> base.Balancer:
    """Loss weightings, then a method on the gradients of the weighted losses.

    With w the weights of the first balancer and v those of the second for the losses w_t L_t, the
    update descends sum_t v_t w_t g_t. Auto-Lambda followed by CAGrad is an example (its paper).

    Convention: the heads receive the gradient of w_t L_t, or of v_t w_t L_t where those of the
    second balancer receive the weighted loss. If the first balancer reads several samples, the
    gradient of a task is the sum over them, with their weights.

    Args:
      balancers: Balancers that read only losses, and a last one of any kind.

    References:
      Liu et al., 2022, arXiv:2202.03091, section 5 (Auto-Lambda with CAGrad)
    """
    if not balancers:
        raise ValueError("chain needs at least one balancer")
    return functools.reduce(_pair, balancers)


def _pair(first: base.Balancer, second: base.Balancer) -> base.Balancer:
    refuse = functools.partial(refuse_balancer, "chain")
    if first.needs is not base.Needs.LOSSES:
        refuse(first, f"reads the {first.needs.value}, and all but the last must read only losses")
    if first.period > 1:
        refuse(first, "rests between updates: wrap the chain instead, (A+B)@every:10")
    if first.perturbation is not None:
        refuse(first, "perturbs the parameters: wrap the chain instead, (A+B)@samo")
    if second.perturbation is not None and (first.lookahead or first.samples > 1):
        refuse(first, "takes a trial step or reads several samples, which samo cannot perturb")
    if second.lookahead:
        refuse(second, "takes a trial step on losses without weights, so it must be the first")
    if second.samples > 1:
        refuse(second, "reads several samples, but the first balancer weighs the whole batch")
    if first.samples > 1 and second.needs is base.Needs.JACOBIAN:
        refuse(second, f"reads the Jacobian, which {name_of(first)} splits into samples")
    samples, keeps_weights = first.samples, second.observe is not None

    def init(num_tasks: int, shared: PyTree) -> base.State:
        state = {"first": first.init(num_tasks, shared), "second": second.init(num_tasks, shared)}
        shape = (samples, num_tasks) if samples > 1 else (num_tasks,)
        return {**state, "weights": jnp.ones(shape)} if keeps_weights else state

    def combine(signals: base.Signals, state: base.State, key: Array) -> base.Combined:
        unread = dict.fromkeys(("gramian", "jacobian", "preference"), base.NOT_COMPUTED)
        of_first = signals._replace(**unread)
        weights, after = first.combine(of_first, state["first"], jax.random.fold_in(key, 1))
        new = {**state, "first": after}
        weights = jnp.where(signals.present, weights, 0.0)
        if keeps_weights:
            new["weights"] = weights
        weighted = weigh_signals(signals, weights, samples)
        combined, new["second"] = second.combine(weighted, state["second"], key)
        inner_heads = jnp.ones(())
        if isinstance(combined, base.WithHeads):
            combined, inner_heads = combined
        combined = combined * weights if second.gives_weights else combined
        if second.heads == "weighted":
            return combined, new
        return base.WithHeads(combined, inner_heads * weights), new

    def observe(signals: base.Signals, losses_after: Array, state: base.State) -> base.State:
        new = dict(state)
        if first.observe is not None:
            new["first"] = first.observe(signals, losses_after, state["first"])
        if second.observe is not None:
            weighted = weigh_signals(signals, state["weights"], samples)
            after = state["weights"] * losses_after
            after = after.sum(0) if samples > 1 else after
            new["second"] = second.observe(weighted, after, state["second"])
        return new

    return base.Balancer(
        init=init,
        combine=combine,
        needs=second.needs,
        heads="weighted" if second.heads == "weighted" else "given",
        observe=observe if first.observe or second.observe else None,
        samples=samples,
        lookahead=first.lookahead,
        parameters_only=second.parameters_only,
        prefers=second.prefers,
        couples=first.couples or second.couples,
        alignment=second.alignment,
        perturbation=second.perturbation,
        period=second.period,
        between=None if second.between is None else _pair(first, second.between),
    )
