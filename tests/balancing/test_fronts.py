"""Methods with a preference: against float64, coupled over rays, and on fronts that are known."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize
from support import front_references as references
from support.balancing import QUICK, distance, jacobians, loss_values

from mtljax.balancing import base, epo, ferero, hypervolume, matrix, pmgda, pmtl
from mtljax.balancing.linear_program import maximize
from mtljax.balancing.rays import AXIS, rays
from mtljax.balancing.rays import hypervolume as dominated_volume

# Norms differ by 1e6, and two losses decrease at almost the same rate.
BEYOND_FLOAT32 = {("ferero", "scaled", 2, 3), ("ferero", "scaled", 3, 2)}
MAKE = {make.__name__: make for make in (epo, pmgda, ferero, pmtl)}


@functools.cache
def stepper(name):
    balancer = MAKE[name]()

    def step(jacobian, losses, preference):
        signals = matrix.plain_signals(balancer, jacobian, losses, jnp.ones(len(losses), bool))
        signals = signals._replace(preference=preference)
        state = balancer.init(len(losses), jacobian[0])
        weights, _ = balancer.combine(signals, state, jax.random.key(0))
        return base.combine_rows(weights, jacobian)

    return jax.jit(step, compiler_options=QUICK)


@pytest.mark.parametrize("name", MAKE)
@pytest.mark.parametrize("num_tasks", [2, 3])
def test_agrees_with_the_paper_for_any_preference(name, num_tasks):
    for kind in ("random", "conflicting", "parallel", "scaled"):
        for seed in range(7):
            rng = np.random.default_rng(seed)
            preference = rng.uniform(0.2, 2, num_tasks).astype(np.float32).astype(float)
            jacobian, losses = jacobians(kind, num_tasks, seed), loss_values(num_tasks, seed)
            if seed % 3 == 2 and kind != "scaled":  # almost on the ray
                losses = 1 / preference * (1 + 3e-3 * rng.normal(size=num_tasks))
            losses = losses.astype(np.float32).astype(float)
            if (name, kind, num_tasks, seed) in BEYOND_FLOAT32:
                continue
            found = stepper(name)(*(x.astype(np.float32) for x in (jacobian, losses, preference)))
            mean_one = preference * num_tasks / preference.sum()
            reference = getattr(references, name)
            expected = (
                reference(mean_one)(jacobian, losses)
                if name == "pmtl"
                else reference(jacobian, losses, mean_one)
            )
            assert distance(np.asarray(found, float), expected) <= 1e-4, (kind, seed)


@pytest.mark.parametrize(("count", "num_tasks"), [(4, 2), (5, 3)])
def test_hypervolume_weighs_each_ray_by_what_all_of_them_dominate(count, num_tasks):
    rng = np.random.default_rng(count)
    points = rng.uniform(0.2, 1, (count, num_tasks))
    points[-1] = points[:-1].max(0) * 0.9  # often dominated
    balancer = hypervolume(reference=(1.2,) * num_tasks, warmup=0)
    present = jnp.ones(num_tasks, bool)

    def weigh(losses):
        signals = base.Signals(losses, present, jnp.zeros((), int))
        return balancer.combine(signals, balancer.init(num_tasks, ()), jax.random.key(0))[0]

    weights = jax.vmap(weigh, axis_name=AXIS)(jnp.asarray(points, jnp.float32))
    expected = references.volume_weights(points, np.full(num_tasks, 1.2))
    np.testing.assert_allclose(weights, expected, atol=2e-6)
    alone = weigh(jnp.asarray(points[0], jnp.float32))
    np.testing.assert_allclose(
        alone, references.volume_weights(points[:1], np.full(num_tasks, 1.2))[0], atol=2e-6
    )


def test_a_network_that_failed_does_not_harm_the_others():
    balancer, present = hypervolume(reference=(1.2, 1.2), warmup=0), jnp.ones(2, bool)

    def weigh(losses):
        signals = base.Signals(losses, present, jnp.zeros((), int))
        return balancer.combine(signals, balancer.init(2, ()), jax.random.key(0))[0]

    points = jnp.array([[0.3, 0.8], [np.nan, 0.1], [0.8, 0.3]])
    weights = jax.vmap(weigh, axis_name=AXIS)(points)
    expected = references.volume_weights(points[::2], np.full(2, 1.2))
    np.testing.assert_allclose(weights[::2], expected, atol=2e-6)


@pytest.mark.parametrize("num_tasks", [1, 2, 3, 4])
def test_the_volume_is_that_of_the_union_of_boxes(num_tasks):
    rng = np.random.default_rng(num_tasks)
    reference = np.linspace(0.7, 1.1, num_tasks)
    for count in (1, 6):
        points = rng.uniform(0, 1, (count, num_tasks))
        expected = references.volume_by_inclusion(np.minimum(points, reference), reference)
        assert dominated_volume(points, reference) == pytest.approx(expected, rel=1e-12)
        stacked = dominated_volume(np.stack([points, points[::-1]]), reference)
        np.testing.assert_allclose(stacked, expected, rtol=1e-12)


@pytest.mark.parametrize("tasks", [2, 3, 5])
def test_weightings_lie_inside_the_simplex_and_differ(tasks):
    weights = rays(tasks, 8)
    assert (weights > 0).all()
    np.testing.assert_allclose(weights.mean(1), 1, rtol=1e-12)
    assert len(np.unique(weights.round(6), axis=0)) == 8
    # Spread evenly: no task is favored on the whole; Halton's points are even to some 1 / N.
    np.testing.assert_allclose(rays(tasks, 200).mean(0), 1, atol=0.05)


def test_linear_programs_are_solved_or_reported_as_unsolvable():
    solve = jax.jit(maximize, compiler_options=QUICK)
    rng = np.random.default_rng(0)
    for _ in range(50):
        matrix = rng.normal(size=(6, 4)) * 10.0 ** rng.uniform(-3, 3, (6, 1))
        matrix = np.vstack([matrix, np.ones(4)]).astype(np.float32)
        inside = rng.random(4) / 4
        bound = (matrix @ inside + np.abs(matrix).max(1) * rng.uniform(0, 0.2, 7)).astype(
            np.float32
        )
        objective = rng.normal(size=4).astype(np.float32)
        expected = scipy.optimize.linprog(-objective, A_ub=matrix, b_ub=bound)
        found = solve(objective, matrix, bound)
        assert found.solved
        assert objective @ np.asarray(found.x) == pytest.approx(-expected.fun, rel=1e-4, abs=1e-5)
    both = jnp.array([[1.0, 1.0], [-1.0, -1.0]])
    assert not maximize(jnp.ones(2), both, jnp.array([1.0, -2.0])).solved  # no x at all
    assert not maximize(jnp.ones(2), jnp.array([[-1.0, 1.0]]), jnp.ones(1)).solved  # no bound
