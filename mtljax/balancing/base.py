"""Contract between a balancer and the train step, and what balancers share."""

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
"""Weights [T], a direction or `WithHeads`, and the new state."""
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


class WithHeads(NamedTuple):
    """Result of `combine` with other weights for the task-specific parameters."""

    shared: Any
    """Weights or direction for the shared parameters."""
    heads: Float[Array, "..."]
    """Weights for the task-specific parameters, [T], or [S, T] for several samples."""


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
    preference: Float[Array, " T"] | None = None
    """Preference over the tasks; None: all equal. Read it by `preference(signals)`."""
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
    """Key in `BALANCERS` or `COMBINATORS`."""
    arguments: Mapping[str, Any]
    """Arguments that were passed, by name; inner balancers are replaced by their specs."""


class HeadAlignment(NamedTuple):
    """Gradient that turns the tasks' gradients of the representation towards the update's.

    The parameters of task t also descend -strength <dL_t/dz, d>, with z the representation and d
    the gradient of the weighted losses with respect to z, held constant.
    """

    strength: float
    """Factor of the inner product."""
    limit: float
    """Largest norm of this gradient, relative to the norm of the gradient of the task's loss."""


class Perturbation(NamedTuple):
    """Point of each task at which its gradient is taken; see `samo`.

    The shared parameters of task t move by `rho` along (1 - beta) g + beta h_t. In each array of
    parameters, g is the gradient of the mean loss, and h_t has the norm of g and a random direction
    along which L_t rises, by finite differences. The parameters of the heads move by `rho` along
    their gradient.
    """

    rho: float
    """Distance of the point."""
    beta: float
    """Weight of the direction of the task itself, from 0 to 1."""
    epsilon: float
    """Step of the finite differences, along standard normal numbers."""


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
        "own" for the gradient of the task's loss, "weighted" for that of the weighted loss. "given"
        if `combine` returns `WithHeads`.
      observe: `(signals, losses_after, state) -> state`, called with the losses of the same batch
        after the update. None: not called, at no cost.
      samples: Number of independent samples of data per step. Example i of the
        batch belongs to sample i mod `samples`.
      lookahead: True if `combine` calls `signals.lookahead`.
      parameters_only: True if the gradients must be those of parameters, because the state contains
        some, or layers are distinguished: gradients of the representation belong to the examples of
        one batch.
      prefers: True if `combine` reads the preference.
      couples: True if `combine` reads the losses of all networks of a front, which train side by
        side under a `vmap` with the axis name `mtljax.balancing.rays.AXIS`.
      period: The step calls `combine` at every `period`-th update, and `between.combine`, which
        reads only losses, at the others: one backward pass.
      between: Balancer between those updates, with the same state; None if `period` is 1.
      alignment: Additional gradient of the heads. It needs weights and a shared representation.
      perturbation: Points at which the task gradients are taken; None: at the parameters. It needs
        `parameters_only`.
      spec: Factory call that created the balancer; None for a balancer created directly.

    Example, which scales every task gradient to length 1:
      >>> def unit(signals, state, key):
      ...     return jax.lax.rsqrt(jnp.diagonal(signals.gramian) + TINY), state
      >>> balancer = Balancer(init=stateless, combine=unit, needs=Needs.GRAMIAN)
      >>> from mtljax.balancing import aggregate
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
    prefers: bool = False
    couples: bool = False
    period: int = 1
    between: "Balancer | None" = None
    alignment: HeadAlignment | None = None
    perturbation: Perturbation | None = None
    spec: BalancerSpec | None = dataclasses.field(default=None, compare=False)

    def __post_init__(self) -> None:
        if self.heads not in ("own", "weighted", "given"):
            raise ValueError(f"heads must be 'own', 'weighted' or 'given', not {self.heads!r}")
        if self.samples > 1 and self.needs is Needs.JACOBIAN:
            raise ValueError(
                f"samples must be 1 for a balancer that needs the Jacobian, not {self.samples}: "
                "several samples are combined by weights"
            )
        if self.alignment is not None and not self.gives_weights:
            raise ValueError("a balancer with an alignment of the heads must give weights")
        if self.perturbation is not None and (self.samples > 1 or self.lookahead):
            raise ValueError("a balancer with a perturbation reads one sample, without trial steps")

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
        try:
            recorded = {name: _recorded(value) for name, value in arguments.items()}
        except LookupError:
            return dataclasses.replace(balancer, spec=None)
        return dataclasses.replace(balancer, spec=BalancerSpec(make.__name__, recorded))

    return factory


def _recorded(value: Any) -> Any:
    """The argument with specs for balancers; raises LookupError for a balancer without one."""
    if isinstance(value, tuple) and any(isinstance(item, Balancer) for item in value):
        return tuple(map(_recorded, value))
    if isinstance(value, Balancer):
        if value.spec is None:
            raise LookupError
        return value.spec
    return value


TINY = 1e-30
"""Lower bound of a divisor that may be a norm of 0."""
LEAST_LOSS = 1e-20
"""Lower bound of a loss in 1 / loss, which times a gradient of 1e10 must not overflow float32."""


def mean_present(values: Float[Array, " T"], present: Bool[Array, " T"]) -> Float[Array, ""]:
    """Mean over the present tasks; 0 if there are none."""
    return jnp.sum(jnp.where(present, values, 0.0)) / jnp.maximum(present.sum(), 1)


def preference(signals: Signals, present: Bool[Array, " T"] | None = None) -> Float[Array, " T"]:
    """Preference with mean 1 over the present tasks; 0 for absent ones; all 1 by default.

    Args:
      present: [T]; that of the signals if None.
    """
    present = signals.present if present is None else present
    if signals.preference is None:
        return present.astype(jnp.float32)
    values = jnp.where(present, signals.preference, 0.0)
    return values * present.sum() / jnp.maximum(values.sum(), TINY)


def mean_weights(signals: Signals, present: Bool[Array, " T"] | None = None) -> Float[Array, " T"]:
    """The preference with sum 1: weights of the mean gradient."""
    present = signals.present if present is None else present
    if signals.preference is None:
        return equal_weights(present)
    return preference(signals, present) / jnp.maximum(present.sum(), 1)


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
        # Not as a matrix: the reshape would gather rows that are sharded along an inner axis.
        rows, axes = leaf.astype(jnp.float32), tuple(range(1, leaf.ndim))
        total = total + jnp.tensordot(rows, rows, axes=(axes, axes), precision="highest")
    return total


def combine_rows(
    weights: Float[Array, " T"], jacobian: PyTree[Float[Array, "T ..."]]
) -> PyTree[Float[Array, "..."]]:
    """sum_t weights[t] * row t, for every leaf."""
    product = functools.partial(jnp.tensordot, axes=1, precision="highest")
    return jax.tree.map(lambda leaf: product(weights.astype(leaf.dtype), leaf), jacobian)
