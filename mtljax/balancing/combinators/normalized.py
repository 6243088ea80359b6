"""Gradients of a common scale."""

import functools

import jax.numpy as jnp
from jaxtyping import Array, PyTree

from mtljax.balancing import base
from mtljax.balancing.combinators.wrapping import around, refuse_balancer, weigh_signals
from mtljax.balancing.rows import row_norms

SCALES = ("none", "norm", "loss", "initial_loss", "average_norm", "average_loss")
"""Values of `by`: divisors of the gradients."""


@base.with_spec
def normalized(balancer: base.Balancer, by: str = "norm", decay: float = 0.9) -> base.Balancer:
    """A balancer on gradients that are divided by a scale of their task first.

    With s_t the scale, the balancer gets the gradients g_t / s_t, and the update descends
    sum_t w_t g_t / s_t with its weights w. Losses that it reads are not scaled.

    Convention: that of the balancer; heads that receive the weighted loss get weight w_t / s_t.

    Args:
      balancer: A balancer that reads gradients of one sample.
      by: Scale: "norm" |g_t|, "loss" L_t (gradients of log L_t), "initial_loss" the first L_t,
        "average_norm" or "average_loss" the running mean over the steps, "none" 1.
      decay: Decay of the running mean, which starts from the first value.

    References:
      Sener and Koltun, 2018, arXiv:1810.04650 (code: by norm, loss and both)
    """
    refuse = functools.partial(refuse_balancer, "normalized", balancer)
    if by not in SCALES:
        raise ValueError(f"normalized: by must be one of {', '.join(SCALES)}, not {by!r}")
    if not 0 <= decay < 1:
        raise ValueError(f"normalized: decay must be in [0, 1), not {decay}")
    if balancer.needs is base.Needs.LOSSES:
        refuse("reads no gradients")
    if balancer.samples > 1 or balancer.lookahead:
        refuse("reads several samples or takes a trial step, whose gradients have other scales")
    if balancer.period > 1:
        refuse("rests between updates, when norms are unknown; put every last, @normalized@every")
    if by == "none":
        return balancer
    decay = 0.0 if by in ("norm", "loss") else 1.0 if by == "initial_loss" else decay

    def init(num_tasks: int, shared: PyTree) -> base.State:
        return {"balancer": balancer.init(num_tasks, shared), "scale": jnp.zeros(num_tasks)}

    def combine(signals: base.Signals, state: base.State, key: Array) -> base.Combined:
        if "loss" in by:
            value = jnp.maximum(signals.losses, base.LEAST_LOSS)
        elif signals.gramian is not base.NOT_COMPUTED:
            value = jnp.sqrt(jnp.diagonal(signals.gramian))
        else:
            value = row_norms(signals.jacobian)
        known = signals.present & (value > 0)
        before = state["scale"]
        mean = jnp.where(before > 0, decay * before + (1 - decay) * value, value)
        scale = jnp.where(known, mean, before)
        inverse = jnp.where(known, 1 / jnp.where(known, scale, 1.0), 0.0)
        scaled = weigh_signals(signals, inverse, samples=1)._replace(losses=signals.losses)
        combined, after = balancer.combine(scaled, state["balancer"], key)
        new = {"balancer": after, "scale": scale}
        if not balancer.gives_weights:
            return combined, new
        if isinstance(combined, base.WithHeads):
            return combined._replace(shared=combined.shared * inverse), new
        return combined * inverse, new

    return around(balancer, init=init, combine=combine)
