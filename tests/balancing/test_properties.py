"""What the papers claim of whole families: invariance, harmlessness, stationarity, any scale."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.balancing import ON_MATRIX, fresh, jacobians, loss_values, made, run
from support.balancing_references import Adam, softmax

from mtljax.balancing import BALANCERS, Needs, Signals, aggregate

ONE_BY_ONE = {"pcgrad", "gradvac", "mocograd", "rlw"}  # random orders or weights, task by task
IN_ORDER = {"fixed", "ldc_mtl", "pcd", "pivrg"}
SYMMETRIC = [name for name in ON_MATRIX if name not in ONE_BY_ONE | IN_ORDER]

# No task's loss rises to first order, whatever the gradients.
HARMLESS = ["mgda", "upgrad", "dualproj", "nash_mtl", "fairgrad", "pivrg", "consmtl", "config"]

# What a task's loss is measured in makes no difference to the direction.
SCALE_FREE_GRADIENT = ["nash_mtl", "config", "dibs_mtl"]
SCALE_FREE_LOSS = ["si", "gls", "igb"]

AT_STATIONARITY = ["mgda", "upgrad", "dualproj", "nash_mtl", "fairgrad", "pivrg"]

few = settings(max_examples=8, deadline=None, derandomize=True)
seeds = st.integers(0, 10_000)


def cosine(a, b):
    return a @ b / np.linalg.norm(a) / np.linalg.norm(b)


@pytest.mark.parametrize("name", SYMMETRIC)
def test_order_of_tasks_does_not_matter(name):
    jacobian, losses = jacobians("conflicting", 8), loss_values(8)
    order = np.array([2, 0, 1, 7, 6, 3, 5, 4])
    plain, _, _ = run(name, jacobian, losses)
    turned, _, _ = run(name, jacobian[order], losses[order])
    np.testing.assert_allclose(turned, plain, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", HARMLESS)
@few
@given(seed=seeds, kind=st.sampled_from(["random", "conflicting", "parallel", "scaled"]))
def test_no_task_is_harmed(name, seed, kind):
    jacobian = jacobians(kind, 3, seed)
    direction, _, _ = run(name, jacobian, loss_values(3))
    size = np.linalg.norm(direction) * np.linalg.norm(jacobian, axis=1)
    assert (jacobian @ direction >= -1e-5 * size).all()


@pytest.mark.parametrize("name", SCALE_FREE_GRADIENT)
@few
@given(seed=seeds, power=st.floats(-4, 4))
def test_gradient_scale_does_not_turn_the_direction(name, seed, power):
    jacobian = jacobians("conflicting", 3, seed)
    plain, _, _ = run(name, jacobian, loss_values(3))
    scaled, _, _ = run(name, jacobian * np.array([[1], [10.0**power], [1]]), loss_values(3))
    assert cosine(plain, scaled) > 1 - 1e-6


@pytest.mark.parametrize("name", SCALE_FREE_LOSS)
@few
@given(seed=seeds, power=st.floats(-4, 4))
def test_loss_scale_does_not_turn_the_direction(name, seed, power):
    jacobian, losses = jacobians("conflicting", 3, seed), loss_values(3)
    factor = np.array([1, 10.0**power, 1])
    plain, _, _ = run(name, jacobian, losses)
    scaled, _, _ = run(name, jacobian * factor[:, None], losses * factor)
    assert cosine(plain, scaled) > 1 - 1e-6


@pytest.mark.parametrize("name", AT_STATIONARITY)
@few
@given(seed=seeds)
def test_direction_vanishes_where_no_task_can_gain(name, seed):
    jacobian = jacobians("random", 3, seed)
    jacobian[2] = -0.3 * jacobian[0] - 1.7 * jacobian[1]  # 0 is inside the hull
    direction, weights, _ = run(name, jacobian, loss_values(3))
    lengths = np.linalg.norm(jacobian, axis=1)
    # nash_mtl and fairgrad have no solution here: their weights grow until float32 sees a sum of 0
    rounding = 1e-5 * weights @ lengths
    assert np.linalg.norm(direction) <= max(3e-3 * lengths.min(), rounding)


def extremes():
    row = jacobians("random", 1)[0]
    one = np.ones((3, 1))
    return {
        "zero": 0 * one * row,
        "one zero": np.array([[1], [0], [1]]) * jacobians("random", 3),
        "equal": one * row,
        "opposed": np.array([[1], [-1], [1]]) * row,
        "opposed pair": np.stack([row, -row, jacobians("random", 1, 7)[0]]),
        "tiny": 1e-10 * jacobians("random", 3),
        "huge": 1e10 * jacobians("random", 3),
        "both": np.array([[1e-10], [1], [1e10]]) * jacobians("conflicting", 3),
    }


@pytest.mark.parametrize("name", ON_MATRIX)
def test_extremes_are_finite_step_after_step(name):
    for kind, jacobian in extremes().items():
        for losses in (np.array([1.0, 2.0, 3.0]), np.zeros(3), np.array([1e-10, 1.0, 1e10])):
            state = fresh(name, 3)
            for _ in range(2):
                direction, weights, state = run(name, jacobian, losses, state=state)
                assert np.isfinite(direction).all(), (kind, losses)
                assert weights is None or np.isfinite(weights).all(), (kind, losses)
            leaves = jax.tree.leaves(state)
            assert all(np.isfinite(leaf).all() for leaf in leaves), (kind, losses)


# Divided by the scale of the gradients, the direction is that of gradients near 1.
HOMOGENEOUS = {
    "mgda": 1, "upgrad": 1, "dualproj": 1, "cagrad": 1, "imgrad": 1, "imtl_g": 1, "config": 1,
    "aligned_mtl": 1, "ntkmtl": 1, "pcgrad": 1, "gradvac": 1, "krum": 1, "trimmed_mean": 1,
    "graddrop": 1, "dibs_mtl": 0, "nash_mtl": 0, "fairgrad": 0, "cr_mogm": 1, "sdmgrad": 1,
}  # fmt: skip


@pytest.mark.parametrize("name", sorted(HOMOGENEOUS))
def test_is_as_exact_at_any_scale(name):
    jacobian, losses = jacobians("conflicting", 3), loss_values(3)
    plain, _, _ = run(name, jacobian, losses)
    for scale in (1e-10, 1e10):
        scaled, _, _ = run(name, scale * jacobian, losses)
        expected = plain * scale ** HOMOGENEOUS[name]
        assert np.linalg.norm(scaled - expected) <= 1e-4 * np.linalg.norm(expected)


@pytest.mark.parametrize("name", sorted(HOMOGENEOUS))
def test_equal_gradients_are_followed(name):
    row = jacobians("random", 1)[0]
    direction, _, _ = run(name, np.ones((3, 1)) * row, np.ones(3))
    assert cosine(direction, row) > 1 - 1e-6


def test_gradvac_turns_each_pair_to_its_usual_cosine():
    balancer = BALANCERS["gradvac"](beta=0.0)
    state = {"cosines": jnp.full((2, 2), 0.5)}
    jacobian = np.array([[1.0, 0.0], [0.0, 2.0]])
    direction = aggregate(balancer, jacobian, state=state)
    root = np.sqrt(3)  # each gradient is lengthened by the other until the angle is 60 degrees
    np.testing.assert_allclose(direction, [1 + 2 / root, 2 + 1 / root], rtol=1e-5)


def test_famo_learns_from_what_the_update_did():
    """Against the paper's update in float64: Adam on (d z / d xi)' (log before - log after)."""
    balancer, logits, adam = BALANCERS["famo"](), np.zeros(3), Adam(0.025)
    step = jnp.zeros((), jnp.int32)
    state, present = balancer.init(3, None), jnp.ones(3, bool)
    rng = np.random.default_rng(0)
    for _ in range(5):
        before, after = rng.uniform(0.5, 2.0, (2, 3))
        signals = Signals(losses=jnp.float32(before), present=present, step=step)
        weights, state = balancer.combine(signals, state, jax.random.key(0))
        share = softmax(logits)
        np.testing.assert_allclose(weights, share / before / (share / before).sum(), rtol=1e-4)
        state = balancer.observe(signals, jnp.float32(after), state)
        turn = np.diag(share) - np.outer(share, share)
        logits = logits + adam.step(turn @ np.log(before / after) + 1e-3 * logits)


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("mgda", {"normalize": "l3"}),
        ("cagrad", {"c": -1}),
        ("fairgrad", {"alpha": 0}),
        ("pivrg", {"stl_losses": (1.0, 0.0)}),
        ("pivrg", {"stl_losses": (1.0, 2.0), "bound": 1}),
        ("sam_gs", {"momentum": 1}),
        ("consmtl", {"strength": -1}),
        ("mocograd", {"calibration": -1}),
        ("fixed", {"weights": [0, 0]}),
        ("stch", {"mu": 0}),
        ("cr_mogm", {"balancer": "nosuch"}),
        ("cr_mogm", {"balancer": "graddrop"}),
        ("krum", {"selected": 0}),
        ("aligned_mtl", {"scale": "max"}),
    ],
)
def test_bad_arguments_are_refused(name, arguments):
    with pytest.raises(ValueError, match=r"\w"):
        BALANCERS[name](**arguments)


def test_weights_for_another_number_of_tasks_are_refused():
    for name in ("fixed", "pivrg"):
        with pytest.raises(ValueError, match="2 numbers"):
            BALANCERS[name]([1, 2]).init(3, None)


def test_only_jacobian_balancers_give_directions():
    for name in BALANCERS:
        balancer = made(name, 3)
        assert balancer.gives_weights or balancer.needs is Needs.JACOBIAN
