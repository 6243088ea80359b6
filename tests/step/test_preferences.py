"""Training of networks conditioned on the preference: known fronts, and one program for all."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import PartitionSpec
from scipy.optimize import minimize_scalar
from support.problem import TASKS, make, make_balancer, make_batch, relative_difference
from support.tiers import full_except

import mtljax
from mtljax import parallel
from mtljax.balancing import cosmos, ew, mgda
from mtljax.config.balancers import balancer_from_text
from mtljax.models import FUSIONS, TRUNKS, build
from mtljax.models.conditioning import (
    CONDITIONINGS,
    PREFERENCE,
    Conditioning,
    Cosmos,
    make_conditioning,
)
from mtljax.tasks import Regression

every = pytest.mark.parametrize("condition", CONDITIONINGS)

TARGETS = np.array([0.6, -0.6])
"""Labels of two tasks that share one output: the front is the segment between them."""
PREFERENCES = np.stack([np.linspace(0.1, 0.9, 5), 1 - np.linspace(0.1, 0.9, 5)], 1)


def conflict(condition, balancer, steps=600):
    """Outputs [preference] of a network whose two heads return the same feature."""
    tasks = [Regression(name=name, center=0.0, scale=1.0) for name in "ab"]
    trunk = TRUNKS["mlp"](widths=(16, 1), norm="none", activation="tanh")
    conditioning = make_conditioning(f"{condition}:concentration=1")
    model = build(trunk, FUSIONS["none"], tasks, conditioning=conditioning)
    image = np.random.default_rng(0).normal(1, 0.1, (16, 2, 2, 1)).astype(np.float32)
    batch = {
        "image": jnp.asarray(image),
        "labels": {t.name: jnp.full(16, x) for t, x in zip(tasks, TARGETS, strict=True)},
        "present": {t.name: jnp.ones(16, bool) for t in tasks},
    }
    heads = ("task_a", "task_b")
    identity = {"Dense_0": {"kernel": np.ones((1, 1), np.float32), "bias": np.zeros(1, np.float32)}}
    optimizer = optax.adam(optax.cosine_decay_schedule(0.02, steps))
    state = mtljax.create_state(
        jax.random.key(0),
        model,
        tasks,
        balancer,
        optimizer,
        batch,
        initial={"params": dict.fromkeys(heads, identity)},
        freeze=heads,
    )
    step = mtljax.make_train_step(model, tasks, balancer, optimizer, freeze=heads)
    body = lambda state, _: (step(state, batch)[0], None)
    state = jax.jit(lambda state: jax.lax.scan(body, state, length=steps)[0])(state)
    rays = jnp.asarray(PREFERENCES, jnp.float32)
    at = lambda ray: model.apply(state.with_preference(ray).variables, batch["image"], train=False)
    found = jax.jit(jax.vmap(at))(rays)
    assert np.array_equal(found["a"], found["b"])
    return np.asarray(found["a"]).mean(1)


@every
def test_linear_scalarization_reaches_the_point_of_each_preference(condition):
    z = conflict(condition, ew())
    np.testing.assert_allclose(z, PREFERENCES @ TARGETS, atol=0.05)  # the minimum of <w, (z - y)^2>
    losses = (z[:, None] - TARGETS) ** 2
    assert (np.diff(losses[:, 0]) < 0).all()
    assert (np.diff(losses[:, 1]) > 0).all()


def test_cosmos_reaches_the_minimum_of_its_objective_at_each_preference():
    penalty = 3.0

    def objective(z, w):
        losses = (z - TARGETS) ** 2
        cosine = w @ losses / np.linalg.norm(w) / np.linalg.norm(losses)
        return w @ losses - penalty * cosine

    minimum = functools.partial(minimize_scalar, objective, bounds=(-0.6, 0.6), method="bounded")
    expected = [minimum(args=(w,)).x for w in PREFERENCES]
    z = conflict("cosmos", cosmos(penalty=penalty))
    np.testing.assert_allclose(z, expected, atol=0.04)


def make_conditioned(condition, balancer=None, **options):
    model = build(
        TRUNKS["mlp"](widths=(16,)),
        FUSIONS["none"],
        TASKS,
        conditioning=make_conditioning(condition),
    )
    return make(balancer or ew(), model=model, **options)


@every
def test_each_step_draws_a_preference_and_the_state_keeps_its_own(condition):
    state, step = make_conditioned(condition)
    step = jax.jit(step)
    drawn = []
    for i in range(4):
        state, logs = step(state, make_batch(i))
        assert np.array_equal(state.preference, np.full(3, 1 / 3, np.float32))
        drawn.append([float(logs["weight"][task.name]) for task in TASKS])
    assert step._cache_size() == 1
    np.testing.assert_allclose(np.sum(drawn, 1), 3, rtol=1e-5)
    assert len(np.unique(drawn, axis=0)) == 4


def test_a_restored_state_draws_the_same_preferences():
    state, step = make_conditioned("hypernetwork:hidden=8")
    step = jax.jit(step)
    for i in range(2):
        state, _ = step(state, make_batch(i))
    restored = state.replace(params=jax.tree.map(np.array, state.params))
    for i in range(2, 4):
        (state, logs), (restored, same) = (step(x, make_batch(i)) for x in (state, restored))
        assert logs["weight"] == same["weight"]
    assert relative_difference(state.params, restored.params) == 0


@pytest.mark.parametrize(
    ("condition", "balancer", "way"),
    [
        ("palora:rank=2", "ew", "jit"),
        pytest.param("hypernetwork:hidden=8", "mgda", "shard_map", marks=pytest.mark.full),
        pytest.param("cosmos", "cosmos", "shard_map", marks=pytest.mark.full),
        pytest.param("hypernetwork:hidden=8,chunk=100", "ew", "jit", marks=pytest.mark.full),
    ],
)
def test_eight_devices_equal_one(condition, balancer, way):
    def run(state, step):
        for i in range(10):
            state, _ = step(state, make_batch(i))
            jax.block_until_ready(state)  # see Placement.sync_on_virtual_cpus
        return jax.device_get(state.params)

    balancer, placement = make_balancer(balancer), parallel.place(48, 8)
    state, step = make_conditioned(condition, balancer)
    expected = run(state, jax.jit(step))
    if way == "jit":
        jitted = jax.jit(step, out_shardings=placement.replicated)
        step = lambda state, batch: jitted(state, placement.shard(batch))
        found = run(placement.replicate(state), step)
    else:
        state, step = make_conditioned(condition, balancer, axis_name="batch")
        whole, part = PartitionSpec(), PartitionSpec("batch")
        shard = functools.partial(jax.shard_map, mesh=placement.mesh, check_vma=False)
        mapped = shard(step, in_specs=(whole, part), out_specs=(whole, whole))
        found = run(state, jax.jit(mapped))
    assert relative_difference(expected, found) <= 1e-5


class Own(nn.Module):
    """A module of a user whose outputs are a learned multiple of the preference."""

    has_variable: bool = True
    conditioning: Conditioning = Cosmos(concentration=1.0)

    @nn.compact
    def __call__(self, image, *, train):
        del train
        factor = self.param("factor", nn.initializers.zeros, (3,))
        ray = jnp.ones(3) / 3
        if self.has_variable:
            ray = self.variable("constants", PREFERENCE, lambda: ray).value
        return {t.name: jnp.full(len(image), factor[i] * ray[i]) for i, t in enumerate(OWN_TASKS)}


OWN_TASKS = [Regression(name=name, center=0.0, scale=1.0) for name in "abc"]


def test_a_module_of_a_user_is_conditioned():
    batch = {
        "image": jnp.zeros((4, 1)),
        "labels": {t.name: jnp.ones(4) for t in OWN_TASKS},
        "present": {t.name: jnp.ones(4, bool) for t in OWN_TASKS},
    }
    optimizer = optax.sgd(0.1)
    for model in (Own(), Own(has_variable=False)):
        state = mtljax.create_state(jax.random.key(0), model, OWN_TASKS, ew(), optimizer, batch)
        step = mtljax.make_train_step(model, OWN_TASKS, ew(), optimizer)
        if not model.has_variable:
            with pytest.raises(ValueError, match="no variable 'preference'"):
                step(state, batch)
            return
        new, logs = jax.jit(step)(state, batch)
        weights = np.array([logs["weight"][t.name] for t in OWN_TASKS])
        # The loss is sum_t w_t (f_t r_t - 1)^2 at f = 0, with r the preference and w = 3 r.
        expected = 0.1 * 2 * weights * weights / 3
        np.testing.assert_allclose(new.params["factor"], expected, rtol=1e-5)


@pytest.mark.parametrize("condition", full_except(["palora"], CONDITIONINGS))
def test_microbatches_equal_the_batch(condition):
    state, step = make_conditioned(condition)
    _, parted = make_conditioned(condition, microbatches=2)
    one, two = jax.jit(step)(state, make_batch(0))[0], jax.jit(parted)(state, make_batch(0))[0]
    assert relative_difference(one.params, two.params) <= 1e-5


def test_features_and_averaged_parameters():
    state, step = make_conditioned("palora", mgda(), level="features", ema=True, ema_decay=0.9)
    state, logs = jax.jit(step)(state, make_batch(0))
    assert np.isfinite(logs["grad_norm"])
    ray = jnp.array([1.0, 0.0, 0.0])
    assert np.array_equal(state.with_preference(ray).variables["constants"]["preference"], ray)


@pytest.mark.parametrize(
    ("text", "reads"),
    [
        ("uw", "reads the preference: ew"),
        ("ew@preferred:2,1,1", "reads the preference: ew"),
        ("cagrad@every:3", "reads the preference in every update: ew"),
    ],
)
def test_a_balancer_that_does_not_read_the_preference_is_refused_in_one_line(text, reads):
    with pytest.raises(ValueError, match=f"needs a balancer that {reads}") as caught:
        make_conditioned("cosmos", balancer_from_text(text))
    assert "\n" not in str(caught.value)
