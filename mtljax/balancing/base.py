"""Contract between a balancer and the train step, and `aggregate`, its use on a plain Jacobian."""

import dataclasses
import enum
import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, ParamSpec, TypeAlias

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PyTree

State: TypeAlias = PyTree
"""State of a balancer between steps: any pytree of arrays, saved and restored with the run."""
Combined: TypeAlias = tuple[Any, State]
"""Weights [T], or a direction, and the new state."""
P = ParamSpec("P")

NOT_COMPUTED: Any = None
"""Value of a field of `Signals` that the balancer does not need."""


class Needs(enum.Enum):
    """Input of a balancer, which determines the number of backward passes per step."""

    LOSSES = "losses"
    """The T losses; one backward pass for any T. The balancer returns weights [T]."""
    GRAMIAN = "gramian"
    """The inner products of the task gradients, [T, T]. The balancer returns weights [T]."""
    JACOBIAN = "jacobian"
    """The task gradients, a pytree with leaves [T, ...]. The balancer returns a direction."""


class Ahead(NamedTuple):
    """Result of a trial step; see `Signals.lookahead`."""

    losses: Float[Array, "S T"]
    """Losses of every sample after the trial step; 0 for absent tasks."""
    products: Callable[[Float[Array, " T"]], Float[Array, " T"]]
    """`c -> p`: p[t] is the inner product, over all parameters, of the gradient of sum_s c[s] L_s
    on the second sample after the trial step and the gradient of L_t on the first sample before it.
    Costs one backward pass and one forward derivative."""


class Signals(NamedTuple):
    """Input of a balancer in one step. A field that the balancer does not need is None.

    For a balancer with `samples` S > 1, each T below is [S, T], and the Gramian is [S, T, S, T]
    with the inner products across samples.
    """

    losses: Float[Array, " T"]
    """Mean loss of each task over the examples that carry its label; 0 if there are none."""
    present: Bool[Array, " T"]
    """True for tasks with a label in this batch. An absent task gets weight 0."""
    step: Int[Array, ""]
    """Number of updates before this one."""
    gramian: Float[Array, "T T"] = NOT_COMPUTED
    """J J^T of the present tasks; rows and columns of absent tasks are 0."""
    jacobian: PyTree[Float[Array, "T ..."]] = NOT_COMPUTED
    """Row t of each leaf is the gradient of task t's loss; rows of absent tasks are 0."""
    lookahead: Callable[[Float[Array, " T"], float, int], Ahead] = NOT_COMPUTED
    """`(weights, step_size, steps)`: evaluates `steps` gradient steps of size `step_size` on
    sum_t weights[t] L_t of the first sample, in all parameters, and discards them."""


class BalancerSpec(NamedTuple):
    """Record of the factory call that created a balancer; see `from_spec`."""

    name: str
    """Key in `BALANCERS`."""
    arguments: Mapping[str, Any]
    """Arguments that were passed, by name; an inner balancer is replaced by its spec."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Balancer:
    """Pair of pure functions, as in optax, with a description of their inputs.

    Attributes:
      init: `(num_tasks, shared) -> state`. `shared` is the pytree that gradients are taken with
        respect to (the shared parameters, or the representation at `level="features"`); only
        balancers whose state has its shape read it.
      combine: `(signals, state, key) -> (weights [T] or direction, state)`. A balancer that needs
        LOSSES or the GRAMIAN returns weights. One that needs the JACOBIAN returns a direction, a
        pytree like one row of `signals.jacobian`, or weights if `heads` is "weighted"; see
        `gives_weights`. The update *descends* along sum_t weights[t] * gradient_t, over all
        samples, or along the direction.
      needs: Input that `combine` reads.
      heads: Gradient for the task-specific parameters, by the convention of the method's paper:
        "own" for the gradient of the task's loss, "weighted" for that of the weighted loss.
      observe: `(signals, losses_after, state) -> state`, called with the losses of the same batch
        after the update. None: not called, at no cost.
      samples: Number of independent samples of data per step. Example i of the
        batch belongs to sample i mod `samples`.
      lookahead: True if `combine` calls `signals.lookahead`.
      parameters_only: True if the state contains gradients. They must then be those of parameters:
        gradients of the representation belong to the examples of one batch.
      spec: Factory call that created the balancer; None for a balancer created directly.

    Example, which scales every task gradient to length 1:
      >>> def unit(signals, state, key):
      ...     return jax.lax.rsqrt(jnp.diagonal(signals.gramian) + TINY), state
      >>> balancer = Balancer(init=stateless, combine=unit, needs=Needs.GRAMIAN)
      >>> aggregate(balancer, jnp.array([[4.0, 0.0], [0.0, 0.5]])).tolist()
      [1.0, 1.0]
    """

    init: Callable[[int, PyTree], State]
    combine: Callable[[Signals, State, jax.Array], Combined]
    needs: Needs
    heads: str = "own"
    observe: Callable[[Signals, Float[Array, " T"], State], State] | None = None
    samples: int = 1
    lookahead: bool = False
    parameters_only: bool = False
    spec: BalancerSpec | None = dataclasses.field(default=None, compare=False)

    def __post_init__(self) -> None:
        if self.heads not in ("own", "weighted"):
            raise ValueError(f"heads must be 'own' or 'weighted', not {self.heads!r}")
        if self.samples > 1 and self.needs is Needs.JACOBIAN:
            raise ValueError(
                f"samples must be 1 for a balancer that needs the Jacobian, not {self.samples}: "
                "several samples are combined by weights"
            )

    @property
    def gives_weights(self) -> bool:
        """True if `combine` returns weights, [T] or [samples, T], not a direction."""
        return self.needs is not Needs.JACOBIAN or self.heads == "weighted"


def with_spec(make: Callable[P, Balancer]) -> Callable[P, Balancer]:
    """Decorates a factory so that its balancers carry a `spec`."""
    signature = inspect.signature(make)

    @functools.wraps(make)
    def factory(*args: P.args, **kwargs: P.kwargs) -> Balancer:
        balancer = make(*args, **kwargs)
        arguments = signature.bind(*args, **kwargs).arguments
        inner = {k: v.spec for k, v in arguments.items() if isinstance(v, Balancer)}
        if None in inner.values():  # an inner balancer that cannot be recorded
            return dataclasses.replace(balancer, spec=None)
        return dataclasses.replace(balancer, spec=BalancerSpec(make.__name__, arguments | inner))

    return factory


TINY = 1e-30
"""Lower bound of a divisor that may be a norm of 0."""
LEAST_LOSS = 1e-20
"""Lower bound of a loss in 1 / loss, which times a gradient of 1e10 must not overflow float32."""


def mean_present(values: Float[Array, " T"], present: Bool[Array, " T"]) -> Float[Array, ""]:
    """Mean over the present tasks; 0 if there are none."""
    return jnp.sum(jnp.where(present, values, 0.0)) / jnp.maximum(present.sum(), 1)


def equal_weights(present: Bool[Array, " T"]) -> Float[Array, " T"]:
    """1 / (number of present tasks) for present tasks, else 0."""
    return present / jnp.maximum(present.sum(), 1).astype(jnp.float32)


def masked_softmax(logits: Float[Array, " T"], present: Bool[Array, " T"]) -> Float[Array, " T"]:
    """Softmax over the present tasks; 0 for absent ones."""
    softmax = jax.nn.softmax(jnp.where(present, logits, -jnp.inf))
    return jnp.where(present, softmax, 0.0)


def stateless(num_tasks: int, shared: PyTree) -> State:
    """`init` of a balancer without state."""
    return ()


def gramian(jacobian: PyTree[Float[Array, "T ..."]]) -> Float[Array, "T T"]:
    """J J^T summed over the leaves, in full float32 on every backend."""
    total = jnp.zeros((), jnp.float32)
    for leaf in jax.tree.leaves(jacobian):
        rows = leaf.reshape(leaf.shape[0], -1).astype(jnp.float32)
        total = total + jnp.matmul(rows, rows.T, precision="highest")
    return total


def combine_rows(
    weights: Float[Array, " T"], jacobian: PyTree[Float[Array, "T ..."]]
) -> PyTree[Float[Array, "..."]]:
    """sum_t weights[t] * row t, for every leaf."""
    product = functools.partial(jnp.tensordot, axes=1, precision="highest")
    return jax.tree.map(lambda leaf: product(weights.astype(leaf.dtype), leaf), jacobian)


def aggregate(
    balancer: Balancer,
    jacobian: Float[Array, "T D"],
    losses: Float[Array, " T"] | None = None,
    state: State | None = None,
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
    """Signals of one Jacobian, whose rows of absent tasks are 0."""
    samples = balancer.samples
    repeat = lambda x: x if samples == 1 else jnp.broadcast_to(x, (samples, *x.shape))
    products = NOT_COMPUTED
    if balancer.needs is Needs.GRAMIAN:
        products = gramian(jacobian)
        if samples > 1:
            products = jnp.tile(products[None, :, None, :], (samples, 1, samples, 1))
    return Signals(
        losses=repeat(jnp.where(present, losses, 0.0)),
        present=repeat(present),
        step=jnp.zeros((), jnp.int32),
        gramian=products,
        jacobian=jacobian if balancer.needs is Needs.JACOBIAN else NOT_COMPUTED,
    )
