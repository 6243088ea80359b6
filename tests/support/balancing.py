"""What the suites over all balancers share: one jitted step of each, and matrices to try it on."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from mtljax.balancing import BALANCERS, required_arguments
from mtljax.balancing.base import WithHeads, combine_rows
from mtljax.balancing.matrix import plain_signals

WIDTH = 64
"""Columns of every Jacobian, so that a step is compiled once per method and number of tasks."""

QUICK = {"xla_backend_optimization_level": 0}
"""Halves the time to compile; what is computed is the same."""

ON_MATRIX = sorted(name for name in BALANCERS if name not in ("auto_lambda", "moml", "forum"))
"""The balancers that work on a plain Jacobian; a new one is among them."""


ARGUMENTS = {
    # With its default step size of 5 the inner iteration overshoots, and doubles every rounding
    # error at each of its 20 steps: no two precisions agree on it.
    "sdmgrad": {"step_size": 0.5},
    "pivrg": {"window": 1},  # else the first steps have equal scores
}


@functools.cache
def made(name, tasks):
    """The balancer with its default arguments; those that it requires get one number per task.

    `tasks` is a number of tasks or a tuple of their indices; task t gets the number 1 + t.
    """
    indices = range(tasks) if isinstance(tasks, int) else tasks
    each = (tuple(1.0 + t for t in indices) for _ in required_arguments(name))
    return BALANCERS[name](*each, **ARGUMENTS.get(name, {}))


@functools.cache
def stepper(name, tasks):
    """`(jacobian, losses, present, state, key) -> (direction, weights or None, state)`, jitted."""
    balancer = made(name, tasks)

    def step(jacobian, losses, present, state, key):
        jacobian = jnp.where(present[:, None], jacobian, 0.0)
        signals = plain_signals(balancer, jacobian, losses, present)
        combined, state = balancer.combine(signals, state, key)
        if isinstance(combined, WithHeads):
            combined = combined.shared
        if not balancer.gives_weights:
            return combined, None, state
        weights = combined if balancer.samples == 1 else combined.sum(0)
        return combine_rows(weights, jacobian), weights, state

    return jax.jit(step, compiler_options=QUICK)


def fresh(name, tasks, width=WIDTH):
    num_tasks = tasks if isinstance(tasks, int) else len(tasks)
    return made(name, tasks).init(num_tasks, jnp.zeros(width))


def run(name, jacobian, losses, present=None, state=None, key=0, tasks=None):
    """One step from a fresh state, if none is given; all in NumPy. For `tasks` see `made`."""
    num_tasks, width = jacobian.shape
    tasks = num_tasks if tasks is None else tasks
    present = np.ones(num_tasks, bool) if present is None else present
    state = fresh(name, tasks, width) if state is None else state
    direction, weights, state = stepper(name, tasks)(
        jacobian.astype(np.float32),
        losses.astype(np.float32),
        present,
        state,
        jax.random.key(key),
    )
    weights = None if weights is None else np.asarray(weights)
    return np.asarray(direction), weights, state


def jacobians(kind, num_tasks, seed=0, width=WIDTH):
    """A float64 Jacobian whose entries are float32 numbers."""
    rng = np.random.default_rng((seed, num_tasks))
    noise = rng.standard_normal((num_tasks, width))
    if kind == "random":
        jacobian = noise
    elif kind == "conflicting":  # half of the tasks pull one way, half the other
        sign = np.where(np.arange(num_tasks) % 2 == 0, 1.0, -1.0)
        jacobian = sign[:, None] * rng.standard_normal(width) + noise
    elif kind == "parallel":  # cosines near 0.9
        jacobian = rng.standard_normal(width) + 0.3 * noise
    elif kind == "scaled":  # norms from 1e-3 to 1e3
        jacobian = noise * 10.0 ** np.linspace(-3, 3, num_tasks)[rng.permutation(num_tasks), None]
    else:
        raise ValueError(kind)
    return jacobian.astype(np.float32).astype(np.float64)


def loss_values(num_tasks, seed=0):
    rng = np.random.default_rng((seed, num_tasks, 1))
    return rng.uniform(0.3, 3.0, num_tasks).astype(np.float32).astype(np.float64)


def distance(direction, reference):
    """Relative to the reference."""
    return np.linalg.norm(direction - reference) / np.linalg.norm(reference)
