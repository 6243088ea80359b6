"""Every balancer against its float64 reference, and what all balancers must have in common."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support.balancing import (
    ON_MATRIX,
    distance,
    fresh,
    jacobians,
    loss_values,
    made,
    run,
    stepper,
)
from support.references import REFERENCES
from support.tiers import full_except

from mtljax.balancing import BALANCERS, FAMILIES, aggregate, describe

KINDS = ("random", "conflicting", "parallel", "scaled")


@pytest.mark.parametrize("num_tasks", full_except([3], [2, 3, 8, 40]))
@pytest.mark.parametrize("name", ON_MATRIX)
def test_agrees_with_the_paper_in_float64(name, num_tasks):
    for kind in KINDS:
        jacobian, losses = jacobians(kind, num_tasks), loss_values(num_tasks)
        direction, _, _ = run(name, jacobian, losses)
        reference = REFERENCES[name]()(jacobian, losses, jax.random.key(0))
        assert distance(direction, reference) <= 1e-4, kind


@pytest.mark.parametrize("name", ON_MATRIX)
def test_agrees_with_the_paper_over_several_steps(name):
    state, reference = fresh(name, 3), REFERENCES[name]()
    for step in range(6):
        jacobian, losses = jacobians("random", 3, seed=step), loss_values(3, seed=step)
        direction, _, state = run(name, jacobian, losses, state=state, key=step)
        expected = reference(jacobian, losses, jax.random.key(step))
        assert distance(direction, expected) <= 1e-4, step


@pytest.mark.parametrize("name", ON_MATRIX)
def test_one_task_trains_along_its_gradient(name):
    jacobian, losses = jacobians("random", 1), loss_values(1)
    direction, _, _ = run(name, jacobian, losses)
    unit = lambda v: v / np.linalg.norm(v)
    np.testing.assert_allclose(unit(direction), unit(jacobian[0]), atol=1e-6)


@pytest.mark.parametrize("name", ["fixed", "dwa", "mgda", "modo", "moco", "excess_mtl"])
def test_aggregate_is_a_step_on_a_plain_matrix(name):
    jacobian, losses = jacobians("conflicting", 3), loss_values(3)
    direction = aggregate(made(name, 3), jacobian, losses)
    np.testing.assert_allclose(direction, run(name, jacobian, losses)[0], rtol=1e-5, atol=1e-5)


# These draw one random number per task, or a set of rays, which differ with the number of tasks.
DRAWS_PER_TASK = {"rlw", "pmtl"}
# These are made with one number per task.
MADE_PER_TASK = {"fixed", "pivrg"}


@pytest.mark.parametrize("name", ON_MATRIX)
def test_absent_task_leaves_the_problem_of_the_others(name):
    jacobian, losses = jacobians("conflicting", 3), loss_values(3)
    present = np.array([True, False, True])
    others = (0, 2) if name in MADE_PER_TASK else 2
    state, smaller = fresh(name, 3), fresh(name, others)
    for step in range(3):
        # The absent task's gradient and loss are not numbers: they must not be looked at.
        jacobian[1], losses[1] = np.nan, np.nan
        direction, weights, state = run(name, jacobian, losses, present, state, step)
        assert np.isfinite(direction).all()
        if weights is not None:
            assert weights[1] == 0
        if name in DRAWS_PER_TASK:
            continue
        problem = jacobian[[0, 2]], losses[[0, 2]], None
        expected, _, smaller = run(name, *problem, smaller, step, others)
        np.testing.assert_allclose(direction, expected, rtol=2e-5, atol=2e-5)
        jacobian, losses = jacobians("conflicting", 3, step + 1), loss_values(3, step + 1)


@pytest.mark.parametrize("name", ON_MATRIX)
def test_no_task_at_all_moves_nothing(name):
    jacobian, losses = jacobians("random", 3), loss_values(3)
    direction, _, state = run(name, jacobian, losses, np.zeros(3, bool))
    assert (direction == 0).all()
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(state))


@pytest.mark.parametrize("name", ON_MATRIX)
def test_is_compiled_once_and_keeps_shapes_and_types(name):
    step, state = stepper(name, 3), fresh(name, 3)
    for seed in range(2):
        _, _, state = run(name, jacobians("random", 3, seed), loss_values(3, seed), state=state)
    assert step._cache_size() == 1
    start = fresh(name, 3)
    describe_leaves = lambda tree: jax.tree.map(lambda x: (x.shape, x.dtype, x.weak_type), tree)
    assert describe_leaves(state) == describe_leaves(start)


@pytest.mark.parametrize("name", sorted(BALANCERS))
def test_state_leaves_share_no_buffer(name):
    leaves = jax.tree.leaves(made(name, 3).init(3, jnp.zeros(5)))
    pointers = [leaf.unsafe_buffer_pointer() for leaf in leaves if leaf.size]
    assert len(set(pointers)) == len(pointers)


@pytest.mark.parametrize("name", sorted(BALANCERS))
def test_is_described(name):
    found = describe(name)
    assert found.summary.endswith(".")
    assert len(found.summary) <= 100
    assert found.needs is made(name, 1).needs
    assert "arXiv:" in found.papers or "20" in found.papers or name in ("ew", "fixed")
    assert made(name, 1).spec.name in [make.__name__ for make in FAMILIES[found.family]]
    assert "Convention: " in BALANCERS[name].__doc__


def test_every_balancer_has_a_reference():
    assert set(ON_MATRIX) == set(REFERENCES)
