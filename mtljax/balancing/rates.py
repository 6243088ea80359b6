"""Weights from the learning speed of each task."""

from collections.abc import Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, PyTree

from mtljax.balancing import base, solvers
from mtljax.balancing.uncertainty import learn, learnable_state


@base.with_spec
def dwa(temperature: float = 2.0, window: int = 100) -> base.Balancer:
    """Dynamic weight average (DWA): larger weights for tasks whose loss falls more slowly.

    With r_t the mean loss of the last window over that of the window before, the weights are
    T * softmax(r / temperature); they are 1 during the first two windows.

    Convention: weights sum to the number of present tasks; the heads receive the weighted loss.

    Args:
      temperature: Softmax temperature; higher is closer to equal weights.
      window: Number of steps whose losses are averaged; an epoch in the paper.

    References:
      Liu, Johns and Davison, 2019, arXiv:1803.10704
    """
    if temperature <= 0 or window < 1:
        raise ValueError(f"needs temperature > 0 and window >= 1, not {temperature}, {window}")

    def init(num_tasks: int, shared: PyTree) -> base.State:
        # Not one array for all, since buffers of a donated state must differ.
        sums = {name: jnp.zeros(num_tasks) for name in ("sum", "count", "last")}
        counts = {name: jnp.zeros((), jnp.int32) for name in ("windows", "steps")}
        return {**sums, "ratio": jnp.ones(num_tasks), **counts}

    def combine(signals: base.Signals, state: base.State, key: Array) -> base.Combined:
        present = signals.present
        weights = base.masked_softmax(state["ratio"] / temperature, present) * present.sum()

        of_window, mean, has_loss, full = add_to_window(state, signals, window)
        mean = jnp.where(has_loss, mean, state["last"])
        known = has_loss & (state["last"] > 0)
        ratio = jnp.where(known, mean / jnp.where(known, state["last"], 1.0), state["ratio"])
        if_full = lambda new, old: jnp.where(full, new, old)
        return weights, {
            **of_window,
            "last": if_full(mean, state["last"]),
            "ratio": if_full(jnp.where(state["windows"] > 0, ratio, 1.0), state["ratio"]),
            "windows": state["windows"] + full,
        }

    return base.Balancer(init=init, combine=combine, needs=base.Needs.LOSSES, heads="weighted")


class LossWindow(NamedTuple):
    """Losses of a window of steps, after one more step."""

    state: dict[str, Array]
    """sum [T], count [T] and steps; all 0 if the window is full."""
    mean: Float[Array, " T"]
    """Mean loss of each task over the window so far."""
    has_loss: Bool[Array, " T"]
    """True for tasks with a label in the window."""
    is_full: Bool[Array, ""]
    """True if this step is the last of the window."""


def add_to_window(state: Mapping[str, Array], signals: base.Signals, window: int) -> LossWindow:
    """Adds the losses of a step to the `sum`, `count` and `steps` of a state."""
    total, count = state["sum"] + signals.losses, state["count"] + signals.present
    steps = state["steps"] + 1
    full = steps >= window
    new = {"sum": jnp.where(full, 0.0, total), "count": jnp.where(full, 0.0, count)}
    new["steps"] = jnp.where(full, 0, steps)
    return LossWindow(new, total / jnp.maximum(count, 1), count > 0, full)


@base.with_spec
def gradnorm(alpha: float = 1.5, learning_rate: float = 0.025) -> base.Balancer:
    """GradNorm: learned weights that give slower tasks larger weighted gradients.

    With n_t = |g_t|, the weighted norms G_t = w_t n_t should be mean(G) * r_t^alpha, where r_t is
    task t's loss relative to its first value, divided by the mean of these ratios. From 1, weights
    follow Adam on sum_t |G_t - target_t| with a constant target, and are then scaled to sum to T.

    Convention: as in the paper, the weights themselves are learned (LibMTL: T times a softmax, from
    the second epoch on, against the first epoch's mean loss); the gradients are those of all shared
    parameters, or of the representation at `level="features"` (paper: the last shared layer's); the
    heads receive the weighted loss.

    Args:
      alpha: Strength of the pull towards a common rate.
      learning_rate: Learning rate of Adam on the weights.

    References:
      Chen et al., 2018, arXiv:1711.02257
    """
    optimizer = optax.adam(learning_rate)

    def init(num_tasks: int, shared: PyTree) -> base.State:
        weights = learnable_state(optimizer, "weights", jnp.ones(num_tasks))
        return {**weights, "first": jnp.zeros(num_tasks)}

    def combine(signals: base.Signals, state: base.State, key: Array) -> base.Combined:
        present = signals.present
        has_first = state["first"] > 0
        state = {**state, "first": jnp.where(present & ~has_first, signals.losses, state["first"])}
        count = present.sum()
        total = jnp.sum(jnp.where(present, state["weights"], 0.0))
        weights = state["weights"] * count / jnp.maximum(total, base.TINY)

        norms = jnp.sqrt(jnp.diagonal(signals.gramian))
        rate = signals.losses / jnp.maximum(state["first"], base.TINY)
        rate = rate / jnp.maximum(base.mean_present(rate, present), base.TINY)
        common = base.preference(signals) * base.mean_present(weights * norms, present)
        target = common * jnp.maximum(rate, 0.0) ** alpha
        gradient = jnp.sign(weights * norms - target) * norms
        new = learn(optimizer, {**state, "weights": weights}, "weights", gradient, present)
        learned = jnp.maximum(new["weights"], 0.0)
        total = jnp.sum(jnp.where(present, learned, 0.0))
        learned = learned * count / jnp.maximum(total, base.TINY)
        new["weights"] = jnp.where(present, learned, state["weights"])
        return jnp.where(present, weights, 0.0), new

    needs = base.Needs.GRAMIAN
    return base.Balancer(init=init, combine=combine, needs=needs, heads="weighted", prefers=True)


@base.with_spec
def famo(
    learning_rate: float = 0.025, decay: float = 1e-3, reference: tuple[float, ...] | None = None
) -> base.Balancer:
    """FAMO: equal relative decrease of all losses, learned from the effect of the last update.

    With z = softmax(xi), the update descends c * sum_t z_t log(L_t - b_t), where c
    normalizes the weights c z_t / (L_t - b_t) to sum to 1. After the update the losses of the same
    batch are computed again, and xi follows Adam on (d z / d xi)' (log L_before - log L_after).

    Convention: weights sum to 1; the heads receive the weighted loss.

    Args:
      learning_rate: Learning rate of Adam on xi.
      decay: L2 penalty on xi, added to its gradient; 1e-3 in the paper, 1e-5 in its code.
      reference: [T] lower bounds b of the losses; 0 if None.

    References:
      Liu et al., 2023, arXiv:2306.03792
    """
    optimizer = optax.chain(optax.add_decayed_weights(decay), optax.adam(learning_rate))
    bound = 0.0 if reference is None else jnp.asarray(reference, jnp.float32)

    def init(num_tasks: int, shared: PyTree) -> base.State:
        if reference is not None and len(reference) != num_tasks:
            raise ValueError(f"{len(reference)} bounds {tuple(reference)} for {num_tasks} tasks")
        return learnable_state(optimizer, "logits", jnp.zeros(num_tasks))

    def excess(losses: Array) -> Array:
        return jnp.maximum(losses - bound, base.LEAST_LOSS)

    def combine(signals: base.Signals, state: base.State, key: Array) -> base.Combined:
        # z / L, scaled by the smallest L, since 1 / L overflows float32 for L near 0.
        height = jnp.where(signals.present, excess(signals.losses), jnp.inf)
        weights = base.masked_softmax(state["logits"], signals.present) * (height.min() / height)
        weights = jnp.where(signals.present, weights, 0.0)
        return weights / jnp.maximum(weights.sum(), base.TINY), state

    def observe(signals: base.Signals, losses_after: Array, state: base.State) -> base.State:
        share = base.masked_softmax(state["logits"], signals.present)
        fall = jnp.log(excess(signals.losses)) - jnp.log(excess(losses_after))
        fall = jnp.where(signals.present, fall, 0.0)
        gradient = share * (fall - solvers.dot(share, fall))
        return learn(optimizer, state, "logits", gradient, signals.present)

    return base.Balancer(
        init=init, combine=combine, needs=base.Needs.LOSSES, heads="weighted", observe=observe
    )


@base.with_spec
def igb(window: int = 100) -> base.Balancer:
    """IGB: larger weights for tasks with a large improvable gap, the loss relative to a base loss.

    With B_t task t's mean loss in the second window of steps, the objective is sum_t w_t log L_t
    with constant w = T softmax(L / B), and w = 1 before the end of that window: L_t gets the weight
    w_t / L_t.

    Convention: IGBv1, with the base loss of the authors' code. IGBv2, which learns w by a
    soft actor-critic, is not included. Losses must be >= 0 (1e-20 if less); the heads receive the
    weighted loss.

    Args:
      window: Number of steps whose losses are averaged; an epoch in the paper.

    References:
      Dai, Fei and Lu, 2023, arXiv:2307.15429
    """
    if window < 1:
        raise ValueError(f"window must be >= 1, not {window}")

    def init(num_tasks: int, shared: PyTree) -> base.State:
        sums = {name: jnp.zeros(num_tasks) for name in ("sum", "count")}
        return {**sums, "steps": jnp.zeros((), jnp.int32)}

    def combine(signals: base.Signals, state: base.State, key: Array) -> base.Combined:
        present = signals.present
        losses = jnp.maximum(jnp.where(present, signals.losses, 1.0), base.LEAST_LOSS)
        steps, count = state["steps"], state["count"]
        known = (steps >= 2 * window) & (count > 0)
        base_losses = jnp.maximum(state["sum"] / jnp.maximum(count, 1), base.LEAST_LOSS)
        gaps = jnp.where(known, losses / base_losses, 1.0)
        share = base.masked_softmax(gaps, present) * present.sum()
        weights = base.preference(signals) * share / losses

        inside = present & (steps >= window) & (steps < 2 * window)
        return weights, {
            "sum": state["sum"] + jnp.where(inside, losses, 0.0),
            "count": count + inside,
            "steps": jnp.minimum(steps + 1, 2 * window),
        }

    needs = base.Needs.LOSSES
    return base.Balancer(init=init, combine=combine, needs=needs, heads="weighted", prefers=True)


@base.with_spec
def rlw() -> base.Balancer:
    """Random loss weighting (RLW): random weights at every step.

    w = softmax(z), z_t drawn from the standard normal distribution.

    Convention: weights sum to 1; the heads receive the weighted loss.

    References:
      Lin et al., 2022, arXiv:2111.10603
    """

    def combine(signals: base.Signals, state: base.State, key: Array) -> base.Combined:
        logits = jax.random.normal(key, signals.losses.shape)
        return base.masked_softmax(logits, signals.present), state

    return base.Balancer(
        init=base.stateless, combine=combine, needs=base.Needs.LOSSES, heads="weighted"
    )
