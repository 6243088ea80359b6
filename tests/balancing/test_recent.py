"""Options and special cases of LDC-MTL, IGB, DiBS-MTL and PCD."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.balancing import distance, jacobians, loss_values, run
from support.recent_references import dibs_mtl, igb, ldc_mtl, pcd

from mtljax.balancing import BALANCERS, Signals, aggregate
from mtljax.balancing.base import combine_rows
from mtljax.balancing.matrix import plain_signals


@pytest.mark.parametrize(
    ("name", "arguments", "reference"),
    [
        ("ldc_mtl", {"penalty": 0.3}, ldc_mtl),
        ("ldc_mtl", {"normalize": "rescaled"}, ldc_mtl),
        ("ldc_mtl", {"normalize": "log"}, ldc_mtl),
        ("igb", {"window": 2}, igb),
        ("dibs_mtl", {"steps": 5}, dibs_mtl),
        ("dibs_mtl", {"steps": 5, "radius": 1e-3}, dibs_mtl),
        ("dibs_mtl", {"steps": 3, "radius": 0.2}, dibs_mtl),
        ("pcd", {"tau": 0.5}, pcd),
        ("pcd", {"tau": 0.0}, pcd),
        ("pcd", {"primary": 2, "beta": 0.5}, pcd),
    ],
    ids=lambda value: getattr(value, "__name__", str(value)),
)
def test_agrees_with_the_paper_with_other_arguments(name, arguments, reference):
    balancer, expected = BALANCERS[name](**arguments), reference(**arguments)
    state = balancer.init(4, jnp.zeros(64))
    step = jax.jit(balancer.combine)
    for seed in range(7):
        jacobian, losses = jacobians("conflicting", 4, seed), loss_values(4, seed)
        rows = jnp.float32(jacobian)
        signals = plain_signals(balancer, rows, jnp.float32(losses), jnp.ones(4, bool))
        weights, state = step(signals, state, jax.random.key(0))
        direction = expected(jacobian, losses, None)
        assert distance(combine_rows(weights, rows), direction) <= 1e-4, seed


CURVES = {  # strictly increasing on positive losses
    "exponential": jnp.exp,
    "logarithm": jnp.log,
    "cube": lambda loss: loss**3,
    "root": jnp.sqrt,
    "scaled": lambda loss: 1e3 * loss - 7,
    "sigmoid": jax.nn.sigmoid,
}


def direction_with(name, curves, seed):
    """The direction of a balancer for losses that are passed through `curves`, one per task."""
    rng = np.random.default_rng(seed)
    matrix = jnp.float32(rng.standard_normal((3, 6, 5)))
    target = jnp.float32(rng.standard_normal((3, 6)))

    def losses(theta):
        plain = ((jnp.einsum("tij,j->ti", matrix, theta) - target) ** 2).mean(1) + 0.1
        return jnp.stack([CURVES[curve](loss) for curve, loss in zip(curves, plain, strict=True)])

    theta = jnp.float32(rng.standard_normal(5)) / 3
    return np.asarray(aggregate(BALANCERS[name](), jax.jacobian(losses)(theta), losses(theta)))


@settings(max_examples=8, deadline=None, derandomize=True)
@given(
    curves=st.lists(st.sampled_from(sorted(CURVES)), min_size=3, max_size=3),
    seed=st.integers(0, 10_000),
)
def test_increasing_functions_of_the_losses_do_not_change_dibs_mtl(curves, seed):
    plain = direction_with("dibs_mtl", ["scaled"] * 3, seed)
    assert distance(direction_with("dibs_mtl", curves, seed), plain) <= 1e-4


def test_increasing_functions_of_the_losses_change_equal_weights():
    """Otherwise the test above would show nothing."""
    plain = direction_with("ew", ["scaled"] * 3, 0)
    other = direction_with("ew", ["exponential", "root", "cube"], 0)
    cosine = plain @ other / np.linalg.norm(plain) / np.linalg.norm(other)
    assert cosine < 0.99


def test_pcd_follows_the_primary_task_if_others_cannot_both_improve():
    rng = np.random.default_rng(0)
    first, second = rng.standard_normal((2, 20))
    direction = aggregate(BALANCERS["pcd"](), np.stack([first, second, -2 * second]))
    np.testing.assert_allclose(direction, first, rtol=1e-5)


def test_pcd_gives_each_other_task_its_share_of_progress():
    jacobian = jacobians("conflicting", 8, 3)
    sizes = np.linalg.norm(jacobian, axis=1)
    direction = np.asarray(aggregate(BALANCERS["pcd"](tau=0.3), jacobian))
    assert np.linalg.norm(direction) == pytest.approx(sizes[0], rel=1e-5)
    progress = jacobian @ direction / sizes  # tau times the same number for every task that binds
    binding = progress[1:] < progress[1:].min() * (1 + 1e-3)
    assert progress[1:].min() > 0
    assert binding.sum() >= 1


def test_pcd_does_not_move_without_its_primary_task():
    jacobian, losses = jacobians("random", 3), loss_values(3)
    direction, _, _ = run("pcd", jacobian, losses, np.array([False, True, True]))
    assert (direction == 0).all()


def test_igb_keeps_the_weights_of_log_losses_until_the_second_window_ends():
    balancer = BALANCERS["igb"](window=2)
    state, weights = balancer.init(2, None), []
    present, step = jnp.ones(2, bool), jnp.zeros((), jnp.int32)
    for losses in ([9.0, 9.0], [9.0, 9.0], [1.0, 4.0], [3.0, 4.0], [2.0, 2.0]):
        signals = Signals(losses=jnp.array(losses), present=present, step=step)
        found, state = balancer.combine(signals, state, jax.random.key(0))
        weights.append(np.asarray(found * jnp.array(losses)))
    np.testing.assert_allclose(weights[:4], 1.0, rtol=1e-6)
    share = np.exp([1.0, 0.5])  # 2 against means of 2 and 4
    np.testing.assert_allclose(weights[4], 2 * share / share.sum(), rtol=1e-6)


def test_ldc_mtl_brings_the_weighted_losses_together():
    balancer = BALANCERS["ldc_mtl"](penalty=10.0, learning_rate=1e-2)
    losses = jnp.array([1.0, 2.0, 4.0])
    signals = Signals(losses=losses, present=jnp.ones(3, bool), step=jnp.zeros((), jnp.int32))
    step = jax.jit(functools.partial(balancer.combine, signals))
    state = balancer.init(3, None)
    spread = lambda state: np.ptp(jax.nn.sigmoid(state["logits"]) * losses)
    before = spread(state)
    for _ in range(300):
        _, state = step(state, jax.random.key(0))
    assert spread(state) < before / 4


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("ldc_mtl", {"normalize": "initial"}, "'none', 'rescaled' or 'log', not 'initial'"),
        ("igb", {"window": 0}, "window must be >= 1, not 0"),
        ("dibs_mtl", {"steps": 0}, "steps >= 1 and radius > 0, not 0"),
        ("pcd", {"tau": 1.5}, r"tau in \[0, 1\] and beta in \[0, 1\), not 1.5"),
    ],
)
def test_bad_arguments_are_refused(name, arguments, message):
    with pytest.raises(ValueError, match=message):
        BALANCERS[name](**arguments)


def test_pcd_refuses_a_primary_task_that_does_not_exist():
    with pytest.raises(ValueError, match=r"primary must be in 0\.\.2, not 3"):
        BALANCERS["pcd"](primary=3).init(3, None)
