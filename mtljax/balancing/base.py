"""The contract between a balancer and the step that asks it how to combine T tasks."""

import dataclasses
import enum
from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PyTree

State: TypeAlias = PyTree
"""A balancer's own memory between steps: any pytree of arrays, saved and restored with the run."""


class Needs(enum.Enum):
    """What a balancer reads, which decides how many backward passes a step costs."""

    LOSSES = "losses"
    """The T losses. One backward pass, whatever T is. Returns weights [T]."""
    GRAMIAN = "gramian"
    """The inner products of the task gradients, [T, T]. Returns weights [T]."""
    JACOBIAN = "jacobian"
    """The task gradients themselves, a pytree with leaves [T, ...]. Returns a direction."""


class Ahead(NamedTuple):
    """What a trial step showed: see `Signals.lookahead`."""

    losses: Float[Array, "S T"]
    """Losses of every sample after it; 0 for absent tasks."""
    products: Callable[[Float[Array, " T"]], Float[Array, " T"]]
    """`c -> p`: p[t] is the inner product, over all parameters, of the gradient of sum_s c[s] L_s
    on the second sample after the trial step, and of that of L_t on the first sample before it. One
    pass backwards and one forward derivative."""


class Signals(NamedTuple):
    """What the step measured on this batch. A field that a balancer does not need is None.

    A balancer with `samples` S > 1 reads S independent samples: each T below is then [S, T], and
    the Gramian [S, T, S, T], with the inner products across samples.
    """

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
    lookahead: Callable[[Float[Array, " T"], float, int], Ahead] | None = None
    """`(weights, step_size, steps)`: takes `steps` steps of -step_size times the gradient of
    sum_t weights[t] L_t on the first sample, in all parameters, and looks from there. Nothing is
    kept."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Balancer:
    """A pair of pure functions, in optax's manner, and what they read.

    Attributes:
      init: `(num_tasks, shared) -> state`. `shared` is the pytree that the gradients are taken with
        respect to (the shared parameters, or the representation at `level="features"`); only
        balancers that keep a copy of its shape look at it.
      combine: `(signals, state, key) -> (weights [T] or direction, state)`. A balancer that needs
        LOSSES or the GRAMIAN returns weights; one that needs the JACOBIAN returns a direction, a
        pytree like one row of `signals.jacobian`, unless its heads are `weighted`: then weights
        (see `gives_weights`). The update then *descends* along sum_t weights[t] * gradient_t (over
        all samples), or along the direction.
      needs: See `Needs`.
      heads: What task-specific parameters receive by the convention of the method's paper: the
        gradient of their `own` loss, or of the `weighted` one.
      observe: `(signals, losses_after, state) -> state`, called with the losses of the same batch
        after the update, for methods that look at what the update did. None: not called, no cost.
      samples: How many independent samples of data a step reads. The batch is split into so many
        equal parts, the first examples first; a bilevel method's second one may as well be a
        validation batch.
      lookahead: Whether `combine` calls `signals.lookahead`.
      parameters_only: Whether the state remembers gradients, which then must be those of
        parameters: the representation's belong to the examples of one batch.

    Example, every task's gradient brought to length 1:
      >>> def unit(signals, state, key):
      ...     return jax.lax.rsqrt(jnp.diagonal(signals.gramian) + TINY), state
      >>> balancer = Balancer(init=stateless, combine=unit, needs=Needs.GRAMIAN)
      >>> aggregate(balancer, jnp.array([[4.0, 0.0], [0.0, 0.5]])).tolist()
      [1.0, 1.0]
    """

    init: Callable[[int, PyTree], State]
    combine: Callable[[Signals, State, jax.Array], tuple[Any, State]]
    needs: Needs
    heads: str = "own"
    observe: Callable[[Signals, Float[Array, " T"], State], State] | None = None
    samples: int = 1
    lookahead: bool = False
    parameters_only: bool = False

    def __post_init__(self):
        if self.heads not in ("own", "weighted"):
            raise ValueError(f"heads must be 'own' or 'weighted', not {self.heads!r}")
        if self.samples > 1 and self.needs is Needs.JACOBIAN:
            raise ValueError("several samples are combined by weights, from losses or a Gramian")

    @property
    def gives_weights(self) -> bool:
        """Whether `combine` returns weights, [T] or [samples, T], rather than a direction."""
        return self.needs is not Needs.JACOBIAN or self.heads == "weighted"


TINY = 1e-30
"""Keeps a division finite where a norm is 0."""
LEAST_LOSS = 1e-20
"""A loss below it counts as this: 1 / loss times a gradient of 1e10 must stay within float32."""


def mean_present(values: Float[Array, " T"], present: Bool[Array, " T"]) -> Float[Array, ""]:
    """The mean over the present tasks; 0 where there are none."""
    return jnp.sum(jnp.where(present, values, 0.0)) / jnp.maximum(present.sum(), 1)


def stateless(num_tasks: int, shared: PyTree) -> State:
    """The `init` of a balancer that remembers nothing."""
    del num_tasks, shared
    return ()


def gramian(jacobian: PyTree[Float[Array, "T ..."]]) -> Float[Array, "T T"]:
    """J J^T summed over the leaves, in float32 whatever the matrix units would rather use."""

    def of(leaf: Array) -> Array:
        rows = leaf.reshape(leaf.shape[0], -1).astype(jnp.float32)
        return jnp.matmul(rows, rows.T, precision="highest")

    leaves = jax.tree.leaves(jacobian)
    return sum((of(leaf) for leaf in leaves), start=jnp.zeros((), jnp.float32))


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
      The direction [D] that an update descends along. A balancer that reads several independent
      samples gets this Jacobian as each of them.

    Raises:
      ValueError: A shape is wrong, or the balancer takes a trial step, which a matrix cannot show.

    Example:
      >>> from mtljax.balancing import ew
      >>> aggregate(ew(), jnp.array([[1.0, 0.0], [0.0, 2.0]])).tolist()
      [1.0, 2.0]
    """
    if balancer.lookahead:
        raise ValueError(
            "this balancer takes a trial step and looks at the losses after it, which a plain "
            "Jacobian cannot show: use it in a train step"
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
    if not balancer.gives_weights:
        return combined
    weights = combined if balancer.samples == 1 else combined.sum(0)
    return combine_rows(jnp.where(present, weights, 0.0), jacobian)


def plain_signals(
    balancer: Balancer,
    jacobian: Float[Array, "T D"],
    losses: Float[Array, " T"],
    present: Bool[Array, " T"],
) -> Signals:
    """What a balancer sees of one Jacobian, whose rows of absent tasks are 0."""
    copies, num_tasks = balancer.samples, len(losses)
    alike = lambda x: x if copies == 1 else jnp.broadcast_to(x, (copies, *x.shape))
    products = None
    if balancer.needs is Needs.GRAMIAN:
        products = gramian(jacobian)
        if copies > 1:
            shape = (copies, num_tasks, copies, num_tasks)
            products = jnp.broadcast_to(products[None, :, None, :], shape)
    return Signals(
        losses=alike(jnp.where(present, losses, 0.0)),
        present=alike(present),
        step=jnp.zeros((), jnp.int32),
        gramian=products,
        jacobian=jacobian if balancer.needs is Needs.JACOBIAN else None,
    )
