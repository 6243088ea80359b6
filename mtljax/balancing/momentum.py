"""Methods that average gradients or weights over the steps."""

import ast
import dataclasses
import functools

import jax
import jax.numpy as jnp
from jaxtyping import Array, PyTree

from mtljax.balancing import base, solvers
from mtljax.balancing.rows import move_rows, row_norms, scale_rows, zero_rows

_averaging = functools.partial(base.Balancer, needs=base.Needs.JACOBIAN, parameters_only=True)


@base.with_spec
def moco(
    beta: float = 0.5,
    beta_decay: float = 0.5,
    gamma: float = 0.1,
    gamma_decay: float = 0.5,
    rho: float = 0.0,
    code: bool = False,
) -> base.Balancer:
    """MoCo: MGDA on running means of the task gradients, with one weight step per update.

    At step k (from 1): Y <- Y - beta k^-beta_decay (Y - J), from 0, and w <- the point of the
    simplex nearest to w - gamma k^-gamma_decay (Y Y' + rho I) w, from 1 / T. The update is Y' w.

    Convention: weights sum to 1. An absent task's row and weight do not change.

    On `digits`, with the defaults, accuracy is 34 points below equal weighting (66.0 % against
    99.8 %, 3 seeds): beta falls to 0.02 in 600 steps, so the means cover about 50 steps and lag
    behind parameters that change faster. beta_decay=0 gives 98.1 %, and beta_decay=0 with beta=1
    99.7 % (1 seed each): if learning is fast, use a high beta.

    Args:
      beta: Step size of the running means.
      beta_decay: Exponent of the decay of beta.
      gamma: Step size of the weights.
      gamma_decay: Exponent of the decay of gamma.
      rho: L2 penalty on the weights.
      code: Follow the authors' code and LibMTL: scale gradients to the norm of their loss first,
        and use a softmax instead of the projection.

    References:
      Fernando et al., 2023, arXiv:2210.12624
    """

    def init(num_tasks: int, shared: PyTree) -> base.State:
        rows, equal = zero_rows(num_tasks, shared), jnp.full(num_tasks, 1 / num_tasks, jnp.float32)
        return {"rows": rows, "weights": equal, "steps": jnp.zeros((), jnp.int32)}

    def combine(signals: base.Signals, state: base.State, key: Array) -> base.Combined:
        present = signals.present
        step = (state["steps"] + 1).astype(jnp.float32)
        jacobian = signals.jacobian
        if code:
            norms = jnp.sqrt(jnp.diagonal(base.gramian(jacobian)))
            jacobian = scale_rows(jacobian, signals.losses / jnp.maximum(norms, base.TINY))
        rate = beta / step**beta_decay
        rows = move_rows(state["rows"], jacobian, rate, present)

        before = jnp.where(present, state["weights"], 0.0)
        mass = jnp.maximum(before.sum(), base.TINY)
        weights = before / mass
        pull = solvers.matvec(base.gramian(rows), weights) + rho * weights
        moved = weights - gamma / step**gamma_decay * pull
        if code:
            weights = base.masked_softmax(moved, present)
        else:
            weights = solvers.project_simplex(moved, present)
        after = jnp.where(present, weights * mass, state["weights"])
        new = {"rows": rows, "weights": after, "steps": state["steps"] + 1}
        return base.combine_rows(weights, rows), new

    return _averaging(init=init, combine=combine)


@base.with_spec
def db_mtl(beta: float = 0.9, beta_decay: float = 0.0) -> base.Balancer:
    """DB-MTL: running means of the log losses' gradients, scaled to the largest norm.

    With g_t / L_t the gradient of log L_t, at step k (from 1) Y <- Y + (1 - b) (J_log - Y), where
    b = beta / k^beta_decay. The update is sum_t Y_t max_s |Y_s| / |Y_t|. Y starts from 0.

    Convention: the sum; the defaults of LibMTL, which has the same authors. An absent task's row
    does not change. The heads receive the unweighted loss (the paper: its logarithm).

    On `digits`, with the defaults, accuracy is 18 points below equal weighting (81.4 % against
    99.8 %, 3 seeds): the shared parameters follow a mean over ten steps, and the heads change
    faster. beta=0 gives 100 %, a learning rate of 1e-3 gives 96.4 % (1 seed each).

    Args:
      beta: Decay of the running mean.
      beta_decay: Exponent of the decay of beta.

    References:
      Lin et al., 2023, arXiv:2308.12029
    """

    def init(num_tasks: int, shared: PyTree) -> base.State:
        return {"rows": zero_rows(num_tasks, shared), "steps": jnp.zeros((), jnp.int32)}

    def combine(signals: base.Signals, state: base.State, key: Array) -> base.Combined:
        present = signals.present
        step = (state["steps"] + 1).astype(jnp.float32)
        logs = scale_rows(signals.jacobian, 1 / jnp.maximum(signals.losses, base.LEAST_LOSS))
        rows = move_rows(state["rows"], logs, 1 - beta / step**beta_decay, present)
        norms = row_norms(rows)
        longest = jnp.max(jnp.where(present, norms, 0.0))
        inside = present & (norms > 0)
        weights = jnp.where(inside, longest / jnp.where(inside, norms, 1.0), 0.0)
        return base.combine_rows(weights, rows), {"rows": rows, "steps": state["steps"] + 1}

    return _averaging(init=init, combine=combine)


@base.with_spec
def excess_mtl(step_size: float = 1e-2, warmup: int = 0) -> base.Balancer:
    """ExcessMTL: larger weights for tasks that are further from their optimum.

    A task's excess risk is estimated as e_t = sum_i g_ti^2 / sqrt(sum of past g_ti^2 + 1e-7),
    relative to its first value. The weights are updated by w_t <- w_t exp(step_size e_t) and
    normalized to sum to T; the first step only records e.

    Convention: as in the paper's code and LibMTL, weights sum to T and start from 1 (paper and
    TorchJD: they sum to 1). The heads receive the weighted loss.

    Args:
      step_size: Step size of the update of the weights; LibMTL's `robust_step_size`.
      warmup: Steps with weights 1 whose mean is the first e; three epochs in the paper's appendix.

    References:
      He et al., 2024, arXiv:2402.02009
    """
    if warmup < 0:
        raise ValueError(f"warmup must be >= 0, not {warmup}")

    def init(num_tasks: int, shared: PyTree) -> base.State:
        zeros = {name: jnp.zeros(num_tasks) for name in ("first", "seen", "log_weights")}
        return {**zeros, "squares": zero_rows(num_tasks, shared)}

    def combine(signals: base.Signals, state: base.State, key: Array) -> base.Combined:
        present = signals.present
        squares = jax.tree.map(lambda s, g: s + g**2, state["squares"], signals.jacobian)
        total = lambda x: x.sum(tuple(range(1, x.ndim)))
        parts = jax.tree.map(
            lambda g, s: total(g**2 / jnp.sqrt(s + 1e-7)), signals.jacobian, squares
        )
        excess = sum(jax.tree.leaves(parts))
        learning = present & (state["seen"] >= max(warmup, 1))
        mean = (state["first"] * state["seen"] + excess) / (state["seen"] + 1)
        first = jnp.where(present & ~learning, mean, state["first"])
        relative = excess / (first + 1e-7)
        log_weights = state["log_weights"] + jnp.where(learning, step_size * relative, 0.0)
        weights = base.masked_softmax(log_weights, present) * present.sum()
        new = {"squares": squares, "first": first, "seen": state["seen"] + present}
        return weights, {**new, "log_weights": log_weights - jnp.max(log_weights)}

    return _averaging(init=init, combine=combine, heads="weighted")


@base.with_spec
def cr_mogm(balancer: str | base.Balancer = "mgda", smoothing: float = 0.9) -> base.Balancer:
    """CR-MOGM: running mean of another balancer's weights.

    w_k = smoothing * w_(k-1) + (1 - smoothing) * v_k, v_k the other balancer's weights; w_1 = v_1.

    Convention: that of the other balancer. A task's mean does not change while the task is absent.

    Args:
      balancer: A balancer that gives weights, or its text: "mgda" or "cagrad:c=0.4".
      smoothing: Decay of the mean, in [0, 1]. The paper raises it as the learning rate falls.

    References:
      Zhou et al., 2022, "On the convergence of stochastic multi-objective gradient manipulation and
      beyond", NeurIPS
    """
    inner = _from_text(balancer) if isinstance(balancer, str) else balancer
    if not inner.gives_weights or inner.samples > 1 or inner.heads == "given" or inner.period > 1:
        raise ValueError(
            "cr_mogm takes a balancer with one weight per task at every update: no direction, no "
            "weights per sample, no chain (put it around the last balancer of one), and no every"
        )
    if not 0 <= smoothing <= 1:
        raise ValueError(f"smoothing must be in [0, 1], not {smoothing}")

    def init(num_tasks: int, shared: PyTree) -> base.State:
        return {
            "inner": inner.init(num_tasks, shared),
            "weights": jnp.zeros(num_tasks),
            "started": jnp.zeros(num_tasks, bool),
        }

    def combine(signals: base.Signals, state: base.State, key: Array) -> base.Combined:
        weights, inner_state = inner.combine(signals, state["inner"], key)
        mixed = smoothing * state["weights"] + (1 - smoothing) * weights
        smooth = jnp.where(state["started"], mixed, weights)
        after = jnp.where(signals.present, smooth, state["weights"])
        started = state["started"] | signals.present
        new = {"inner": inner_state, "weights": after, "started": started}
        return jnp.where(signals.present, smooth, 0.0), new

    def observe(signals: base.Signals, losses_after: Array, state: base.State) -> base.State:
        assert inner.observe is not None
        return {**state, "inner": inner.observe(signals, losses_after, state["inner"])}

    after = observe if inner.observe else None
    return dataclasses.replace(inner, init=init, combine=combine, observe=after)


def _from_text(text: str) -> base.Balancer:
    """Creates the balancer `name` or `name:argument=value,...`."""
    from mtljax.balancing import BALANCERS  # not at the top: this dict contains cr_mogm

    name, _, rest = text.partition(":")
    if name not in BALANCERS:
        raise ValueError(f"unknown balancer {name!r}; available: {', '.join(BALANCERS)}")
    read = lambda node: node.id if isinstance(node, ast.Name) else ast.literal_eval(node)
    try:
        call = ast.parse(f"{name}({rest})", mode="eval").body
        words = call.keywords if isinstance(call, ast.Call) else []
        return BALANCERS[name](**{str(word.arg): read(word.value) for word in words})
    except (SyntaxError, TypeError, ValueError) as error:
        raise ValueError(f"balancer {text!r} cannot be created: {error}") from None
