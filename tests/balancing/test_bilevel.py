"""The methods that take a trial step, on quadratic losses whose every derivative is known."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize
from support.balancing import made
from support.balancing_references import Adam, least_norm, norms, softmax

from mtljax.balancing import Signals, aggregate
from mtljax.balancing.base import Ahead

TASKS, SIZE = 3, 5
NAMES = ["auto_lambda", "moml", "forum"]


class Problem:
    """L_t(theta) = |A_t theta - b_t|^2 / 2 on two samples; all in float64."""

    def __init__(self, seed=0):
        rng = np.random.default_rng(seed)
        self.matrix = rng.standard_normal((2, TASKS, 4, SIZE)) / 2
        self.target = rng.standard_normal((2, TASKS, 4))
        self.theta = rng.standard_normal(SIZE)

    def rest(self, sample, theta):
        return np.einsum("tij,j->ti", self.matrix[sample], theta) - self.target[sample]

    def losses(self, sample, theta):
        return (self.rest(sample, theta) ** 2).sum(1) / 2

    def gradients(self, sample, theta):
        return np.einsum("tij,ti->tj", self.matrix[sample], self.rest(sample, theta))

    def moved(self, weights, step_size, steps):
        theta = self.theta
        for _ in range(steps):
            theta = theta - step_size * weights @ self.gradients(0, theta)
        return theta


def losses_in_jax(problem):
    matrix, target = jnp.float32(problem.matrix), jnp.float32(problem.target)

    def losses(theta):
        rest = jnp.einsum("stij,j->sti", matrix, theta) - target
        return (rest**2).sum(-1) / 2

    return losses


def signals_of(problem, present):
    """What a train step would show, computed as one would: passes backwards and a derivative."""
    losses = losses_in_jax(problem)
    theta = jnp.float32(problem.theta)

    def lookahead(weights, step_size, steps):
        ahead = theta
        for _ in range(steps):
            ahead = ahead - step_size * jax.grad(lambda t: weights @ losses(t)[0])(ahead)

        def products(cotangents):
            pulled = jax.grad(lambda t: cotangents @ losses(t)[1])(ahead)
            return jax.jvp(lambda t: losses(t)[0], (theta,), (pulled,))[1]

        return Ahead(losses(ahead), products)

    rows = jax.jacobian(losses)(theta)
    return Signals(
        losses=losses(theta),
        present=jnp.tile(present, (2, 1)),
        step=jnp.zeros((), jnp.int32),
        gramian=jnp.einsum("std,ued->stue", rows, rows),
        lookahead=lookahead,
    )


def run(name, steps=4, present=None):
    """Weights [steps, 2, T] of as many steps, each with a problem of its own."""
    balancer = made(name, TASKS)
    present = jnp.ones(TASKS, bool) if present is None else present
    state, found = balancer.init(TASKS, None), []
    for step in range(steps):
        signals = signals_of(Problem(step), present)
        weights, state = balancer.combine(signals, state, jax.random.key(0))
        found.append(np.asarray(weights))
    return np.stack(found)


def auto_lambda(steps):
    weights, adam = np.full(TASKS, 0.1), Adam(1e-4)
    for step in range(steps):
        problem = Problem(step)
        ahead = problem.gradients(1, problem.moved(weights, 0.1, 1)).sum(0)
        weights = weights + adam.step(-0.1 * problem.gradients(0, problem.theta) @ ahead)
        yield np.stack([weights, 0 * weights])


def moml(steps):
    logits, adam = np.zeros(TASKS), Adam(1e-3)
    for step in range(steps):
        problem, weights = Problem(step), softmax(logits)
        jacobian = np.diag(weights) - np.outer(weights, weights)
        here = problem.gradients(0, problem.theta)
        ahead = problem.gradients(1, problem.moved(weights, 0.1, 1))
        rows = -0.1 * ahead @ here.T @ jacobian
        logits = logits + adam.step(least_norm(rows) @ rows)
        yield np.stack([softmax(logits) / 2] * 2)


def forum(steps):
    logits, adam, mean = np.zeros(TASKS), Adam(1e-3), np.zeros(TASKS)
    for step in range(steps):
        problem, weights = Problem(step), softmax(logits)
        jacobian = np.diag(weights) - np.outer(weights, weights)
        fall = problem.losses(0, problem.theta) - problem.losses(0, problem.moved(weights, 0.1, 5))
        of_logits = jacobian @ fall
        normal = np.append(of_logits, weights @ problem.gradients(0, problem.theta))
        rows = problem.gradients(1, problem.theta)
        units = np.hstack([np.zeros((TASKS, TASKS)), rows / norms(rows)[:, None]])
        square = normal @ normal

        def value(z, units=units, normal=normal, square=square):
            return np.sum((z[:-1] @ units + z[-1] * normal) ** 2) / 2 - 0.1 * square * z[-1]

        found = scipy.optimize.minimize(
            value,
            np.append(np.full(TASKS, 1 / TASKS), 0.1),
            bounds=[(0, None)] * (TASKS + 1),
            constraints={"type": "eq", "fun": lambda z: z[:-1].sum() - 1},
            method="SLSQP",
            tol=1e-14,
        ).x[:-1]
        mean = mean + (step + 1) ** -0.75 * (found - mean)
        force = max(0.1 * mean.sum() - mean @ units @ normal / square, 0.0)
        logits = logits + adam.step(force * of_logits)
        yield np.stack([force * weights, mean / norms(rows)])


@pytest.mark.parametrize(("name", "reference"), [(n, globals()[n]) for n in NAMES])
def test_agrees_with_the_paper_in_float64(name, reference):
    expected = np.stack(list(reference(4)))
    assert np.abs(run(name) - expected).max() <= 1e-4 * np.abs(expected).max()


@pytest.mark.parametrize("name", NAMES)
def test_absent_task_weighs_nothing(name):
    weights = run(name, present=jnp.array([True, False, True]))
    assert (weights[..., 1] == 0).all()
    assert np.isfinite(weights).all()
    assert (weights[:, 0, [0, 2]] != 0).any() or name == "forum"


@pytest.mark.parametrize("name", NAMES)
def test_a_plain_matrix_is_refused(name):
    with pytest.raises(ValueError, match="trial step"):
        aggregate(made(name, 2), jnp.ones((2, 3)))


def test_forum_is_finite_where_the_gradients_cancel():
    """The weighted sum of opposed gradients has a squared length that rounding makes negative."""
    gram = np.array([[1.0, -1.0000001], [-1.0000001, 1.0]], np.float32)
    losses = jnp.ones((2, 2))
    signals = Signals(
        losses=losses,
        present=jnp.ones((2, 2), bool),
        step=jnp.zeros((), jnp.int32),
        gramian=jnp.broadcast_to(gram[None, :, None, :], (2, 2, 2, 2)),
        lookahead=lambda weights, step_size, steps: Ahead(losses, lambda c: 0 * c),
    )
    balancer = made("forum", 2)
    weights, _ = balancer.combine(signals, balancer.init(2, None), jax.random.key(0))
    assert np.isfinite(weights).all()
