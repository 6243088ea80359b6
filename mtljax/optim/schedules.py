"""Learning-rate schedules by name."""

import dataclasses
import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, ArrayLike, Float, Int, PyTree

from mtljax.utils.registry import choose


class PlateauState(NamedTuple):
    """State of the plateau schedule, a part of the optimizer's state and so of checkpoints."""

    scale: Float[Array | np.ndarray, "*S"]
    """Factor of all updates."""
    best: Float[Array | np.ndarray, "*S"]
    """Lowest validation score so far."""
    evaluations: Int[Array | np.ndarray, "*S"]
    """Evaluations since the best one, or since the last reduction."""


@dataclasses.dataclass(frozen=True)
class Plateau:
    """Schedule that depends on the validation scores; see `plateau`."""

    rate: optax.Schedule
    """Schedule before reductions."""
    factor: float
    """Factor of the learning rate at each reduction."""
    patience: int
    """Number of evaluations without a better score before a reduction."""
    end: float
    """Lower bound of the factor."""

    def __call__(self, count: ArrayLike) -> Float[Array, ""]:
        """Returns the learning rate without reductions."""
        return jnp.asarray(self.rate(count))

    def reduces(self, optimizer: optax.GradientTransformation) -> optax.GradientTransformation:
        """Returns the optimizer with the reductions; its state is (optimizer's, PlateauState)."""

        def init(params: PyTree) -> tuple[PyTree, PlateauState]:
            return optimizer.init(params), new_plateau()

        def update(
            updates: PyTree, state: tuple[PyTree, PlateauState], params: PyTree | None = None
        ) -> tuple[PyTree, tuple[PyTree, PlateauState]]:
            updates, inner = optimizer.update(updates, state[0], params)
            return jax.tree.map(lambda u: u * state[1].scale, updates), (inner, state[1])

        return optax.GradientTransformation(init, update)

    def observe(self, state: PlateauState, score: Float[np.ndarray, " *S"]) -> PlateauState:
        """Returns the state after an evaluation, as NumPy arrays.

        Args:
          state: State before it, stacked if there are several runs.
          score: Score of each run; lower is better.
        """
        with np.errstate(over="ignore"):  # the score of metrics that are not finite
            score, scale = np.asarray(score, np.float32), np.asarray(state.scale)
        improved = score < np.asarray(state.best)
        count = np.where(improved, 0, np.asarray(state.evaluations) + 1)
        is_due = count >= self.patience
        reduced = np.maximum(scale * np.float32(self.factor), np.float32(self.end))
        return PlateauState(
            scale=np.where(is_due, reduced, scale),
            best=np.where(improved, score, state.best),
            evaluations=np.where(is_due, 0, count).astype(np.int32),
        )


def new_plateau() -> PlateauState:
    """Returns the state before the first evaluation."""
    return PlateauState(jnp.ones(()), jnp.full((), jnp.inf), jnp.zeros((), jnp.int32))


def with_or_without_plateau(opt_state: PyTree) -> PyTree:
    """Removes the plateau schedule's state from an optimizer state, or adds it if it has none."""
    match opt_state:
        case (inner, PlateauState()):
            return inner
    return opt_state, new_plateau()


def reductions(opt_state: PyTree) -> list[float]:
    """Returns the factor of the plateau schedule for each run; [] with another schedule."""
    match opt_state:
        case (_, PlateauState(scale=scale)):
            return np.ravel(np.asarray(scale)).tolist()
    return []


def constant(peak: float, steps: int, warmup: int = 0) -> optax.Schedule:
    """Constant learning rate, after `warmup` steps of linear warm-up."""
    return _after_warmup(peak, warmup, optax.constant_schedule(peak))


def cosine(peak: float, steps: int, warmup: int = 0, end: float = 0.0) -> optax.Schedule:
    """Cosine decay of the learning rate to `end` times its peak, after `warmup` steps."""
    decay = optax.cosine_decay_schedule(peak, max(1, steps - warmup), end)
    return _after_warmup(peak, warmup, decay)


def linear(peak: float, steps: int, warmup: int = 0, end: float = 0.0) -> optax.Schedule:
    """Linear decay of the learning rate to `end` times its peak, after `warmup` steps."""
    decay = optax.linear_schedule(peak, end * peak, max(1, steps - warmup))
    return _after_warmup(peak, warmup, decay)


def step(
    peak: float, steps: int, warmup: int = 0, every: int = 0, factor: float = 0.5
) -> optax.Schedule:
    """Learning rate times `factor` after each `every` steps (0: a third of the run)."""
    if every < 0:
        raise ValueError(f"every must be >= 0 steps, not {every}")
    every = every or max(1, steps // 3)
    decay = optax.exponential_decay(peak, every, factor, staircase=True)
    return _after_warmup(peak, warmup, decay)


def poly(
    peak: float, steps: int, warmup: int = 0, power: float = 0.9, end: float = 0.0
) -> optax.Schedule:
    """Polynomial decay to `end` times the peak: (1 - t / steps) ** `power`, after `warmup` steps.

    References:
      Chen et al., 2016, arXiv:1606.00915 (DeepLab)
    """
    if not 0 < power < math.inf:
        raise ValueError(f"power must be > 0 and finite, not {power}")
    decay = optax.polynomial_schedule(peak, end * peak, power, max(1, steps - warmup))
    return _after_warmup(peak, warmup, decay)


def plateau(
    peak: float,
    steps: int,
    warmup: int = 0,
    factor: float = 0.1,
    patience: int = 5,
    end: float = 0.0,
) -> Plateau:
    """Learning rate times `factor` after `patience` evaluations without a better `select`.

    The criterion is that of the best checkpoint; any lower score is better. After a reduction,
    counting starts again. The learning rate is at least `end` times the peak.
    """
    if not 0 < factor < 1:
        raise ValueError(f"factor must be between 0 and 1, not {factor}")
    if patience < 1:
        raise ValueError(f"patience must be >= 1 evaluation, not {patience}")
    if not 0 <= end < 1:
        raise ValueError(f"end must be >= 0 and < 1, not {end}")
    rate = _after_warmup(peak, warmup, optax.constant_schedule(peak))
    return Plateau(rate, factor, patience, end)


SCHEDULES: dict[str, Callable[..., optax.Schedule]] = {
    "constant": constant,
    "cosine": cosine,
    "linear": linear,
    "poly": poly,
    "step": step,
    "plateau": plateau,
}
"""Name -> function of the peak and the number of steps that returns a schedule."""


def make_schedule(schedule: str, learning_rate: float, steps: int) -> optax.Schedule:
    """Creates a schedule from text such as `cosine:warmup=100`.

    Raises:
      ValueError: The name or an argument is unknown or invalid.
    """
    choice = choose("schedule", schedule, SCHEDULES, hidden=("peak", "steps"))
    return choice.build(learning_rate, steps)


def _after_warmup(peak: float, warmup: int, decay: optax.Schedule) -> optax.Schedule:
    if warmup < 0:
        raise ValueError(f"warmup must be >= 0 steps, not {warmup}")
    if not warmup:
        return decay
    # Starts above 0, so that the first step has an effect.
    rise = optax.linear_schedule(peak / (warmup + 1), peak, warmup)
    return optax.join_schedules([rise, decay], [warmup])
