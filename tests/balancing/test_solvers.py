"""The solvers against independent float64 solutions, on well and badly conditioned Gramians."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support.balancing import QUICK
from support.balancing_references import (
    alpha_fair,
    best_clusters,
    harmless,
    least_norm,
    nearest_on_simplex,
    norms,
    worst_served_best,
)

from mtljax.balancing import solvers
from mtljax.balancing.groups import cluster_means

SIZES = (2, 3, 8, 24, 64)
KINDS = ("random", "conflicting", "near-opposed", "parallel", "low-rank", "scaled")

# The solvers see a float32 Gramian, whose entries are wrong by 6e-8; in these two families its
# smallest eigenvalue is 1e-3 or 0, so what depends on it is known to 1e-4 at best.
LOOSE = {"near-opposed", "low-rank"}


@functools.cache
def matrix(kind, num_tasks):
    rng = np.random.default_rng(num_tasks)
    width = max(2, num_tasks // 3) if kind == "low-rank" else 2 * num_tasks + 5
    noise = rng.standard_normal((num_tasks, width))
    sign = np.where(np.arange(num_tasks) % 2 == 0, 1.0, -1.0)[:, None]
    common = rng.standard_normal(width)
    jacobian = {
        "random": noise,
        "low-rank": noise,
        "conflicting": sign * common + noise,
        "near-opposed": sign * common + 0.05 * noise,
        "parallel": common + 0.1 * noise,
        "scaled": noise * 10.0 ** rng.uniform(-5, 5, (num_tasks, 1)),
    }[kind]
    return jacobian.astype(np.float32).astype(np.float64)


def gramian_of(jacobian):
    return jnp.asarray(jacobian @ jacobian.T, jnp.float32)


def every(num_tasks):
    return jnp.ones(num_tasks, bool)


jit = functools.partial(jax.jit, compiler_options=QUICK)
min_norm, dual_cone = jit(solvers.min_norm), jit(solvers.dual_cone)
conflict_averse = jit(solvers.conflict_averse)


def fair(gramian, alpha, present):
    return _fair(gramian, alpha, present, jnp.ones(len(present)))


_fair = jit(solvers.fair, static_argnums=1)


@pytest.mark.parametrize("num_tasks", SIZES)
def test_min_norm_is_exact(num_tasks):
    for kind in KINDS:
        jacobian = matrix(kind, num_tasks)
        weights = np.asarray(min_norm(gramian_of(jacobian), every(num_tasks)), np.float64)
        assert weights.min() >= 0
        assert abs(weights.sum() - 1) < 1e-5
        error = np.linalg.norm((weights - least_norm(jacobian)) @ jacobian)
        assert error <= 1e-5 * norms(jacobian).min(), kind


@pytest.mark.parametrize("num_tasks", SIZES)
def test_dual_cone_is_exact(num_tasks):
    for kind in KINDS:
        jacobian = matrix(kind, num_tasks)
        equal = jnp.ones(num_tasks)
        weights = dual_cone(gramian_of(jacobian), equal, every(num_tasks))
        error = np.asarray(weights) @ jacobian - harmless(jacobian, jacobian.sum(0))
        tolerance = 1e-4 if kind in LOOSE else 1e-5
        assert np.linalg.norm(error) <= tolerance * norms(jacobian).max(), kind


@pytest.mark.parametrize("num_tasks", SIZES)
def test_conflict_averse_is_exact(num_tasks):
    for kind in KINDS:
        jacobian = matrix(kind, num_tasks)
        mean = jacobian.mean(0)
        equal = jnp.full(num_tasks, 1 / num_tasks)
        lift = conflict_averse(gramian_of(jacobian), equal, 0.4, every(num_tasks))
        length = np.linalg.norm(mean)
        error = np.asarray(lift, np.float64) @ jacobian + mean
        error -= worst_served_best(jacobian, mean, 0.4 * length)
        tolerance = 1e-3 if kind in LOOSE else 1e-5
        assert np.linalg.norm(error) <= tolerance * length, kind


@pytest.mark.parametrize("alpha", [0.5, 1.0, 2.0])
@pytest.mark.parametrize("num_tasks", [2, 8, 64])
def test_fair_is_exact(num_tasks, alpha):
    for kind in KINDS:
        if kind == "low-rank":
            continue  # where gradients cancel the equation has no solution
        jacobian = matrix(kind, num_tasks)
        weights = np.asarray(fair(gramian_of(jacobian), alpha, every(num_tasks)), np.float64)
        expected = alpha_fair(jacobian, alpha) @ jacobian
        tolerance = 1e-3 if kind in LOOSE else 1e-5
        error = np.linalg.norm(weights @ jacobian - expected)
        assert error <= tolerance * np.linalg.norm(expected), kind


@pytest.mark.parametrize("seed", [4, 6])
def test_fair_solves_its_equation_where_alpha_is_large_and_norms_are_far_apart(seed):
    rng = np.random.default_rng(seed)
    jacobian = rng.standard_normal((64, 64)) * 10.0 ** rng.uniform(-4, 4, (64, 1))
    weights = np.asarray(fair(gramian_of(jacobian), 5.0, every(64)), np.float64)
    gains = jacobian @ (weights @ jacobian)
    # what rounding of the float32 Gramian can do to a gain, as a share of it
    rounding = 6e-8 * np.abs(jacobian @ jacobian.T) @ weights / np.abs(gains)
    np.testing.assert_array_less(np.abs(gains * weights**0.2 - 1), 1e-4 + 4 * rounding)


def test_fair_stays_finite_where_gradients_are_opposed_but_for_rounding():
    # Of the toy problem, on its way from (0, 0): the cosine is -1 - 1.2e-7 in float32.
    gram = np.array([[0.017788919, -0.19538578], [-0.19538578, 2.1460326]], np.float32)
    for alpha in (0.5, 1.0, 2.0, 5.0):
        scaled = [
            np.asarray(fair(scale * gram, alpha, every(2))) * scale ** (alpha / (1 + alpha))
            for scale in (1.0, 1e-10, 1e10)
        ]
        assert all(np.isfinite(w).all() and (w > 0).all() for w in scaled)
        # Both tasks weigh so much that their gradients cancel.
        norms = np.sqrt(np.diagonal(gram))
        assert scaled[0] * norms / (scaled[0] * norms).max() == pytest.approx(1.0, abs=1e-3)
        # The ridge, which is of the size of rounding, says how long the weights are.
        np.testing.assert_allclose(scaled[1], scaled[0], rtol=0.05)
        np.testing.assert_allclose(scaled[2], scaled[0], rtol=0.05)


def test_constrained_min_norm_is_the_dual_optimum():
    rng = np.random.default_rng(0)
    solve = jit(solvers.constrained_min_norm)
    for _ in range(10):
        units = rng.standard_normal((4, 9))
        units /= norms(units)[:, None]
        normal = rng.standard_normal(9) * rng.uniform(0.1, 3)
        length, share = np.linalg.norm(normal), 0.3
        weights = solve(
            gramian_of(units), jnp.asarray(units @ normal / length), length, share, every(4)
        )

        def value(w, units=units, normal=normal, length=length, share=share):
            force = max(share - normal @ (w @ units) / length**2, 0.0)
            return np.sum((w @ units + force * normal) ** 2) - 2 * force * share * length**2

        weights = np.asarray(weights, np.float64)
        best = value(weights / weights.sum())
        for _ in range(300):  # no point of the simplex is better, near or far
            other = rng.dirichlet(np.full(4, 0.5))
            for step in (1.0, 0.1, 0.01, 1e-3):
                assert best <= value((1 - step) * weights + step * other) + 1e-6


def test_simplex_projection_is_exact():
    rng = np.random.default_rng(0)
    project = jit(solvers.project_simplex)
    for scale in (1e-3, 1.0, 1e3):
        point = (scale * rng.standard_normal(7)).astype(np.float32)
        expected = nearest_on_simplex(point.astype(np.float64))
        np.testing.assert_allclose(
            project(point, np.ones(7, bool)), expected, atol=1e-6 + 1e-7 * scale
        )


@pytest.mark.parametrize("groups", [1, 2, 3, 9])
def test_clusters_are_the_best_of_all(groups):
    rng = np.random.default_rng(groups)
    solve = jit(functools.partial(cluster_means, groups=groups))
    for _ in range(5):
        values = rng.standard_normal(7) ** 3
        found = solve(jnp.asarray(values, jnp.float32), jnp.ones(7, bool))
        np.testing.assert_allclose(found, best_clusters(values, groups), rtol=1e-5, atol=1e-6)


def test_solvers_run_under_vmap():
    stack = jnp.stack([gramian_of(matrix(kind, 8)) for kind in KINDS])
    together = jit(jax.vmap(solvers.min_norm, in_axes=(0, None)))(stack, every(8))
    alone = jnp.stack([min_norm(gram, every(8)) for gram in stack])
    np.testing.assert_allclose(together, alone, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("num_tasks", [2, 5, 13, 40, 64])
def test_active_sets_are_right_on_any_rank_and_scale(num_tasks):
    """The objectives, which are squared distances, to 1e-5 of what is added up to reach them.

    Where gradients nearly cancel, the weights are large, and so is what float32 rounds away.
    """
    rng = np.random.default_rng(num_tasks)
    for _ in range(200):
        rank = rng.integers(1, 2 * num_tasks + 2)
        scales = 10.0 ** rng.uniform(-3, 3, (num_tasks, 1))
        jacobian = (rng.standard_normal((num_tasks, rank)) * scales).astype(np.float32)
        jacobian = jacobian.astype(np.float64)
        gram = gramian_of(jacobian)
        weights = np.asarray(min_norm(gram, every(num_tasks)), np.float64)
        error = np.linalg.norm((weights / weights.sum() - least_norm(jacobian)) @ jacobian)
        assert error**2 <= 1e-5 * (weights @ norms(jacobian)) ** 2
        weights = np.asarray(dual_cone(gram, jnp.ones(num_tasks), every(num_tasks)))
        error = weights @ jacobian - harmless(jacobian, jacobian.sum(0))
        assert np.sum(error**2) <= 1e-5 * (weights @ norms(jacobian)) ** 2


def test_constrained_min_norm_is_finite_where_rounding_makes_the_matrix_indefinite():
    """Opposed unit vectors have opposed cosines to any other, except for rounding."""
    opposed, inside = jnp.array([[1.0, -1.0], [-1.0, 1.0]]), jnp.ones(2, bool)
    solve = jax.jit(solvers.constrained_min_norm, static_argnums=3)
    for first, second in np.random.default_rng(0).uniform(-2e-3, 2e-3, (200, 2)):
        weights = solve(opposed, jnp.float32([first, second]), jnp.float32(1e-5), 0.1, inside)
        assert np.isfinite(weights).all()
        assert float(weights.sum()) == pytest.approx(1, abs=1e-5)
