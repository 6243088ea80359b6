"""Weights that keep the weighted losses of the tasks close to each other."""

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, PyTree

from mtljax.balancing import base
from mtljax.balancing.uncertainty import learn, learnable_state

NORMALIZATIONS = ("none", "rescaled", "log")
"""Values of `normalize`."""


@base.with_spec
def ldc_mtl(
    penalty: float = 0.01, learning_rate: float = 1e-3, normalize: str = "none"
) -> base.Balancer:
    """LDC-MTL: learned weights, and a penalty on differences between the weighted losses.

    With s = sigmoid(a) and normalized losses l, network and a minimize one objective, sum_t s_t l_t
    / sum_t s_t + penalty * sum_t |s_t l_t - s_(t+1) l_(t+1)|, in which sum_t s_t is a constant. a
    follows Adam on the gradient, from a = 1.

    Convention: as in the authors' code for CelebA: no input of the network determines a. The
    penalty couples neighbors in the order of the tasks. The heads receive the weighted loss.

    Args:
      penalty: Weight of the differences: 0.01 in the authors' code for CelebA, 0.05 for NYUv2 and
        QM9, 0.1 for Cityscapes.
      learning_rate: Learning rate of Adam on a; that of the network in the authors' code.
      normalize: "none" (CelebA, Cityscapes), "rescaled" (NYUv2): each loss is divided by the ratio
        of its first value to the smallest first value, or "log" (QM9): logarithm of the ratio of
        the loss to its first value.

    References:
      Xiao et al., 2025, arXiv:2502.08585
    """
    if normalize not in NORMALIZATIONS:
        raise ValueError(f"normalize must be 'none', 'rescaled' or 'log', not {normalize!r}")
    optimizer = optax.adam(learning_rate)

    def init(num_tasks: int, shared: PyTree) -> base.State:
        logits = learnable_state(optimizer, "logits", jnp.ones(num_tasks))
        return {**logits, "first": jnp.zeros(num_tasks)}

    def combine(signals: base.Signals, state: base.State, key: Array) -> base.Combined:
        present = signals.present
        is_first = present & (state["first"] == 0)
        first = jnp.where(is_first, signals.losses, state["first"])
        values, slopes = _normalized(normalize, signals.losses, first)
        values = jnp.where(present, values, 0.0)

        gates = jax.nn.sigmoid(state["logits"])
        total = jnp.sum(jnp.where(present, gates, 0.0))
        factors = 1 / jnp.maximum(total, base.TINY) + penalty * _pull(gates * values, present)
        gradient = gates * (1 - gates) * values * factors
        new = learn(optimizer, {**state, "first": first}, "logits", gradient, present)
        return jnp.where(present, gates * slopes * factors, 0.0), new

    return base.Balancer(init=init, combine=combine, needs=base.Needs.LOSSES, heads="weighted")


def _normalized(normalize: str, losses: Array, first: Array) -> tuple[Array, Array]:
    """Normalized losses and their derivatives by the losses."""
    if normalize == "rescaled":
        known = first != 0
        least = jnp.min(jnp.where(known, first, jnp.inf))
        slopes = jnp.where(known, least / jnp.where(known, first, 1.0), 1.0)
        return losses * slopes, slopes
    if normalize == "log":
        floor = lambda loss: jnp.maximum(loss, base.LEAST_LOSS)
        return jnp.log(floor(losses)) - jnp.log(floor(first)), 1 / floor(losses)
    return losses, jnp.ones_like(losses)


def _pull(values: Float[Array, " T"], present: Bool[Array, " T"]) -> Float[Array, " T"]:
    """Gradient of sum_t |v_t - v_(t+1)| over consecutive present tasks."""
    size = values.shape[0]
    order = jnp.argsort(~present, stable=True)  # the present tasks first, in their order
    line = values[order]
    following = jnp.roll(line, -1)
    rounding = 1e-6 * jnp.maximum(jnp.abs(line), jnp.abs(following))  # rescaled losses start equal
    differ = jnp.abs(line - following) > rounding
    paired = jnp.arange(size) + 1 < present.sum()
    sign = jnp.where(paired & differ, jnp.sign(line - following), 0.0)
    return jnp.zeros(size).at[order].set(sign - jnp.roll(sign, 1))
