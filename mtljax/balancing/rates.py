"""Weights from how fast each task learns."""

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, PyTree

from mtljax.balancing.base import (
    LEAST_LOSS,
    TINY,
    Balancer,
    Combined,
    Needs,
    Signals,
    State,
    mean_present,
    stateless,
    with_spec,
)
from mtljax.balancing.uncertainty import learn, to_learn


@with_spec
def dwa(temperature: float = 2.0, window: int = 100) -> Balancer:
    """Dynamic weight average: a task whose loss falls more slowly gets more weight.

    With r_t the mean loss of the last window over that of the window before, the weights are
    T * softmax(r / temperature); they are 1 during the first two windows.

    Convention: weights sum to the number of present tasks; the heads receive the weighted loss.

    Args:
      temperature: Higher is closer to equal weights.
      window: Steps whose losses are averaged; the paper takes an epoch.

    References:
      Liu, Johns and Davison, 2019, arXiv:1803.10704
    """
    if temperature <= 0 or window < 1:
        raise ValueError(f"needs temperature > 0 and window >= 1, not {temperature}, {window}")

    def init(num_tasks: int, shared: PyTree) -> State:
        zeros = lambda: jnp.zeros(num_tasks)  # one buffer each: donated states must not share any
        return {
            "sum": zeros(),
            "count": zeros(),
            "last": zeros(),
            "ratio": jnp.ones(num_tasks),
            "windows": jnp.zeros((), jnp.int32),
            "steps": jnp.zeros((), jnp.int32),
        }

    def combine(signals: Signals, state: State, key: Array) -> Combined:
        present = signals.present
        weights = jax.nn.softmax(jnp.where(present, state["ratio"] / temperature, -jnp.inf))
        weights = jnp.where(present, weights * present.sum(), 0.0)

        total = state["sum"] + signals.losses
        count = state["count"] + present
        steps = state["steps"] + 1
        full = steps >= window
        seen = count > 0
        mean = jnp.where(seen, total / jnp.maximum(count, 1), state["last"])
        known = seen & (state["last"] > 0)
        ratio = jnp.where(known, mean / jnp.where(known, state["last"], 1.0), state["ratio"])
        keep = lambda new, old: jnp.where(full, new, old)
        return weights, {
            "sum": keep(0.0, total),
            "count": keep(0.0, count),
            "last": keep(mean, state["last"]),
            "ratio": keep(jnp.where(state["windows"] > 0, ratio, 1.0), state["ratio"]),
            "windows": state["windows"] + full,
            "steps": keep(0, steps),
        }

    return Balancer(init=init, combine=combine, needs=Needs.LOSSES, heads="weighted")


@with_spec
def gradnorm(alpha: float = 1.5, learning_rate: float = 0.025) -> Balancer:
    """GradNorm: learned weights give slower tasks larger weighted gradients.

    With n_t = |g_t|, the weighted norms G_t = w_t n_t should be mean(G) * r_t^alpha, where r_t is
    task t's loss relative to its first one, over the mean of these. The weights follow Adam on
    sum_t |G_t - target_t|, the target held constant, and are then scaled to sum to T. They start
    from 1.

    Convention: as in the paper, the weights themselves are learned (LibMTL: T times a softmax, from
    the second epoch on, against the first epoch's mean loss); the gradients are those of all shared
    parameters, or of the representation at `level="features"` (paper: the last shared layer's); the
    heads receive the weighted loss.

    Args:
      alpha: Strength of the pull towards a common rate.
      learning_rate: Of Adam on the weights.

    References:
      Chen et al., 2018, arXiv:1711.02257
    """
    optimizer = optax.adam(learning_rate)

    def init(num_tasks: int, shared: PyTree) -> State:
        weights = to_learn(optimizer, "weights", jnp.ones(num_tasks))
        return {**weights, "first": jnp.zeros(num_tasks)}

    def combine(signals: Signals, state: State, key: Array) -> Combined:
        present = signals.present
        seen = state["first"] > 0
        state = {**state, "first": jnp.where(present & ~seen, signals.losses, state["first"])}
        count = present.sum()
        total = jnp.sum(jnp.where(present, state["weights"], 0.0))
        weights = state["weights"] * count / jnp.maximum(total, TINY)

        norms = jnp.sqrt(jnp.diagonal(signals.gramian))
        rate = signals.losses / jnp.maximum(state["first"], TINY)
        rate = rate / jnp.maximum(mean_present(rate, present), TINY)
        target = mean_present(weights * norms, present) * jnp.maximum(rate, 0.0) ** alpha
        gradient = jnp.sign(weights * norms - target) * norms
        new = learn(optimizer, {**state, "weights": weights}, "weights", gradient, present)
        learned = jnp.maximum(new["weights"], 0.0)
        learned = learned * count / jnp.maximum(jnp.sum(jnp.where(present, learned, 0.0)), TINY)
        new["weights"] = jnp.where(present, learned, state["weights"])
        return jnp.where(present, weights, 0.0), new

    return Balancer(init=init, combine=combine, needs=Needs.GRAMIAN, heads="weighted")


@with_spec
def famo(
    learning_rate: float = 0.025, decay: float = 1e-3, reference: tuple[float, ...] | None = None
) -> Balancer:
    """FAMO: every task's loss falls by the same share, learned from what the last update did.

    With z = softmax(xi), the update descends c * sum_t z_t log(L_t - b_t), where c makes the
    weights c z_t / (L_t - b_t) sum to 1. After the update the losses of the same batch are taken
    again, and xi follows Adam on (d z / d xi)' (log L_before - log L_after).

    Convention: weights sum to 1; the heads receive the weighted loss.

    Args:
      learning_rate: Of Adam on xi.
      decay: L2 penalty on xi, added to its gradient: the paper's 1e-3; its code has 1e-5.
      reference: [T] lower bounds b of the losses; 0 if None.

    References:
      Liu et al., 2023, arXiv:2306.03792
    """
    optimizer = optax.chain(optax.add_decayed_weights(decay), optax.adam(learning_rate))
    bound = 0.0 if reference is None else jnp.asarray(reference, jnp.float32)

    def init(num_tasks: int, shared: PyTree) -> State:
        if reference is not None and len(reference) != num_tasks:
            raise ValueError(f"{len(reference)} bounds {tuple(reference)} for {num_tasks} tasks")
        return to_learn(optimizer, "logits", jnp.zeros(num_tasks))

    def shares(state, present):
        softmax = jax.nn.softmax(jnp.where(present, state["logits"], -jnp.inf))
        return jnp.where(present, softmax, 0.0)

    def above(losses):
        return jnp.maximum(losses - bound, LEAST_LOSS)

    def combine(signals: Signals, state: State, key: Array) -> Combined:
        # z / L, scaled by the smallest L: 1 / L of a loss near 0 is beyond float32 when summed
        height = jnp.where(signals.present, above(signals.losses), jnp.inf)
        weights = shares(state, signals.present) * (height.min() / height)
        weights = jnp.where(signals.present, weights, 0.0)
        return weights / jnp.maximum(weights.sum(), TINY), state

    def observe(signals, losses_after, state):
        share = shares(state, signals.present)
        fall = jnp.log(above(signals.losses)) - jnp.log(above(losses_after))
        fall = jnp.where(signals.present, fall, 0.0)
        gradient = share * (fall - jnp.dot(share, fall))
        return learn(optimizer, state, "logits", gradient, signals.present)

    return Balancer(
        init=init, combine=combine, needs=Needs.LOSSES, heads="weighted", observe=observe
    )


@with_spec
def rlw() -> Balancer:
    """Random loss weighting: new random weights for every step.

    w = softmax(z), z_t drawn from the standard normal distribution.

    Convention: weights sum to 1; the heads receive the weighted loss.

    References:
      Lin et al., 2022, arXiv:2111.10603
    """

    def combine(signals: Signals, state: State, key: Array) -> Combined:
        logits = jax.random.normal(key, signals.losses.shape)
        softmax = jax.nn.softmax(jnp.where(signals.present, logits, -jnp.inf))
        return jnp.where(signals.present, softmax, 0.0), state

    return Balancer(init=stateless, combine=combine, needs=Needs.LOSSES, heads="weighted")
