"""The contract between a balancer and the step that asks it how to combine T tasks into one update."""

import dataclasses
import enum
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PyTree

State = PyTree
"""A balancer's own memory between steps: any pytree of arrays, saved and restored with the run."""


class Needs(enum.Enum):
    """What a balancer reads, which decides how many backward passes a step costs."""

    LOSSES = "losses"
    """The T losses. One backward pass, whatever T is. Returns weights [T]."""
    GRAMIAN = "gramian"
    """The inner products of the task gradients, [T, T]. Returns weights [T]."""
    JACOBIAN = "jacobian"
    """The task gradients themselves, a pytree with leaves [T, ...]. Returns a direction."""


class Signals(NamedTuple):
    """What the step measured on this batch. A field that a balancer does not need is None."""

    losses: Float[Array, " T"]
    """Mean loss of each task over the examples that carry its label; 0 where none does."""
    present: Bool[Array, " T"]
    """Which tasks have a label in this batch. An absent task gets weight 0."""
    step: Int[Array, ""]
    """How many updates were made before this one."""
    gramian: Float[Array, "T T"] | None = None
    """J J^T of the present tasks; rows and columns of absent tasks are 0."""
    jacobian: PyTree[Float[Array, "T ..."]] | None = None
    """Row t of each leaf is the gradient of task t's loss; rows of absent tasks are 0."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Balancer:
    """A pair of pure functions, in optax's manner, and what they read.

    Attributes:
      init: `(num_tasks, shared) -> state`. `shared` is the pytree that the gradients are taken with
        respect to (the shared parameters, or the representation at `level="features"`); only
        balancers that keep a copy of its shape look at it.
      combine: `(signals, state, key) -> (weights [T] or direction, state)`. A balancer that needs
        LOSSES or the GRAMIAN returns weights; one that needs the JACOBIAN returns a direction, a
        pytree like one row of `signals.jacobian`. The update then *descends* along
        sum_t weights[t] * gradient_t, or along the direction.
      needs: See `Needs`.
      heads: What task-specific parameters receive by the convention of the method's paper: the
        gradient of their `own` loss, or of the `weighted` one.
      observe: `(signals, losses_after, state) -> state`, called with the losses of the same batch
        after the update, for methods that look at what the update did. None: not called, no cost.
    """

    init: Callable[[int, PyTree], State]
    combine: Callable[[Signals, State, jax.Array], tuple[Any, State]]
    needs: Needs
    heads: str = "own"
    observe: Callable[[Signals, Float[Array, " T"], State], State] | None = None

    def __post_init__(self):
        if self.heads not in ("own", "weighted"):
            raise ValueError(f"heads must be 'own' or 'weighted', not {self.heads!r}")
        if self.heads == "weighted" and self.needs is Needs.JACOBIAN:
            raise ValueError("a balancer that returns a direction has no weights for the heads")


def stateless(num_tasks: int, shared: PyTree) -> State:
    """The `init` of a balancer that remembers nothing."""
    del num_tasks, shared
    return ()


def gramian(jacobian: PyTree[Float[Array, "T ..."]]) -> Float[Array, "T T"]:
    """J J^T summed over the leaves, in float32 whatever the matrix units would rather use."""

    def of(leaf: Array) -> Array:
        rows = leaf.reshape(leaf.shape[0], -1).astype(jnp.float32)
        return jnp.matmul(rows, rows.T, precision="highest")

    return sum(of(leaf) for leaf in jax.tree.leaves(jacobian))


def combine_rows(
    weights: Float[Array, " T"], jacobian: PyTree[Float[Array, "T ..."]]
) -> PyTree[Float[Array, "..."]]:
    """sum_t weights[t] * row t, for every leaf."""
    return jax.tree.map(
        lambda leaf: jnp.tensordot(weights.astype(leaf.dtype), leaf, axes=1, precision="highest"),
        jacobian,
    )


def aggregate(
    balancer: Balancer,
    jacobian: Float[Array, "T D"],
    losses: Float[Array, " T"] | None = None,
    state: State | None = None,
    key: jax.Array | None = None,
    *,
    present: Bool[Array, " T"] | None = None,
) -> Float[Array, " D"]:
    """What `balancer` makes of a plain Jacobian: the code of the train step on one matrix.

    Args:
      balancer: One of `BALANCERS`, made: `pcgrad()`, not `pcgrad`.
      jacobian: [T, D], row t the gradient of task t.
      losses: [T], ones if None.
      state: The balancer's state, a fresh one if None.
      key: For balancers that draw random numbers; `jax.random.key(0)` if None.
      present: [T], all tasks if None.

    Returns:
      The direction [D] that an update descends along.

    Example:
      >>> aggregate(ew(), jnp.array([[1.0, 0.0], [0.0, 2.0]])).tolist()
      [1.0, 2.0]
    """
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
    signals = Signals(
        losses=jnp.where(present, losses, 0.0),
        present=present,
        step=jnp.zeros((), jnp.int32),
        gramian=gramian(jacobian) if balancer.needs is Needs.GRAMIAN else None,
        jacobian=jacobian if balancer.needs is Needs.JACOBIAN else None,
    )
    combined, _ = balancer.combine(signals, state, jax.random.key(0) if key is None else key)
    if balancer.needs is Needs.JACOBIAN:
        return combined
    return combine_rows(jnp.where(present, combined, 0.0), jacobian)
