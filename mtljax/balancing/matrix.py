"""Use of a balancer on a plain Jacobian."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from mtljax.balancing import base


def aggregate(
    balancer: base.Balancer,
    jacobian: Float[Array, "T D"],
    losses: Float[Array, " T"] | None = None,
    state: base.State | None = None,
    key: jax.Array | None = None,
    *,
    present: Bool[Array, " T"] | None = None,
) -> Float[Array, " D"]:
    """Combines the rows of a plain Jacobian with the code of the train step.

    Args:
      balancer: A balancer, created: `pcgrad()`, not `pcgrad`.
      jacobian: [T, D]; row t is the gradient of task t.
      losses: [T]; ones if None.
      state: State of the balancer; a new one if None.
      key: Random key; `jax.random.key(0)` if None.
      present: [T]; all tasks if None.

    Returns:
      The direction [D] that an update descends along. A balancer that reads several independent
      samples gets this Jacobian as each of them.

    Raises:
      ValueError: A shape is wrong, or the balancer takes a trial step, which needs a model.

    Example:
      >>> from mtljax.balancing import ew
      >>> aggregate(ew(), jnp.array([[1.0, 0.0], [0.0, 2.0]])).tolist()
      [1.0, 2.0]
    """
    if balancer.lookahead:
        raise ValueError(
            "this balancer takes a trial step and reads the losses after it, which a plain "
            "Jacobian does not contain: use it in a train step"
        )
    jacobian = jnp.asarray(jacobian, jnp.float32)
    if jacobian.ndim != 2:
        raise ValueError(f"jacobian must be [tasks, parameters], not of shape {jacobian.shape}")
    num_tasks = jacobian.shape[0]
    present = jnp.ones(num_tasks, bool) if present is None else jnp.asarray(present, bool)
    losses = jnp.ones(num_tasks) if losses is None else jnp.asarray(losses, jnp.float32)
    if losses.shape != (num_tasks,):
        raise ValueError(f"losses must be of shape ({num_tasks},), not {losses.shape}")
    jacobian = jnp.where(present[:, None], jacobian, 0.0)
    if state is None:
        state = balancer.init(num_tasks, jacobian[0])
    signals = plain_signals(balancer, jacobian, losses, present)
    combined, _ = balancer.combine(signals, state, jax.random.key(0) if key is None else key)
    if isinstance(combined, base.WithHeads):
        combined = combined.shared
    if not balancer.gives_weights:
        return combined
    weights = combined if balancer.samples == 1 else combined.sum(0)
    return base.combine_rows(jnp.where(present, weights, 0.0), jacobian)


def plain_signals(
    balancer: base.Balancer,
    jacobian: Float[Array, "T D"],
    losses: Float[Array, " T"],
    present: Bool[Array, " T"],
) -> base.Signals:
    """Signals of one Jacobian, whose rows of absent tasks are 0."""
    samples = balancer.samples
    repeat = lambda x: x if samples == 1 else jnp.broadcast_to(x, (samples, *x.shape))
    products = base.NOT_COMPUTED
    if balancer.needs is base.Needs.GRAMIAN:
        products = base.gramian(jacobian)
        if samples > 1:
            products = jnp.tile(products[None, :, None, :], (samples, 1, samples, 1))
    return base.Signals(
        losses=repeat(jnp.where(present, losses, 0.0)),
        present=repeat(present),
        step=jnp.zeros((), jnp.int32),
        gramian=products,
        jacobian=jacobian if balancer.needs is base.Needs.JACOBIAN else base.NOT_COMPUTED,
    )
