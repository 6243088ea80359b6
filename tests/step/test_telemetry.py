"""Measurements of the tasks' gradients, against NumPy and against gradients taken one by one."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.flatten_util import ravel_pytree

from mtljax.comparison.grouping.affinity import make_affinity
from mtljax.config import Data, Experiment
from mtljax.models.partition import join, partition
from mtljax.step import telemetry
from mtljax.tasks import Classification, Regression
from mtljax.training.programs import Programs, copy_for_measurement
from mtljax.training.setup import set_up
from mtljax.training.steps import telemetry_interval

EXPERIMENT = Experiment(
    name="measured",
    tasks=(Classification(name="digit", num_classes=10), Regression(name="value", scale=3.0)),
    data=Data(source="digits", batch_size=16),
    trunk="mlp:widths=(8,),norm=none",
    optimizer="sgd",
    learning_rate=0.1,
)


@given(st.integers(2, 5), st.integers(0, 2**32 - 1))
@settings(max_examples=20, deadline=None)
def test_a_gramian_is_described_as_numpy_would(tasks, seed):
    chance = np.random.default_rng(seed)
    rows = chance.normal(size=(tasks, 12)) * chance.uniform(0.1, 3, (tasks, 1))
    found = telemetry.describe_gramian(jnp.array(rows @ rows.T, jnp.float32), jnp.ones(tasks, bool))
    norms = np.linalg.norm(rows, axis=1)
    cosine = rows @ rows.T / np.outer(norms, norms)
    upper = np.triu_indices(tasks, 1)
    similarity = 2 * np.outer(norms, norms) / (norms[:, None] ** 2 + norms[None, :] ** 2)
    expected = {
        "gramian": rows @ rows.T,
        "cosine": cosine,
        "magnitude_similarity": similarity,
        "conflicting": (cosine[upper] < 0).mean(),
        "mean_cosine": cosine[upper].mean(),
        "mean_magnitude_similarity": similarity[upper].mean(),
    }
    assert found.keys() == {*expected, "condition"}
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-4, atol=1e-5)
    singular = np.linalg.svd(rows, compute_uv=False)
    # Squares in float32 have half the digits of singular values.
    np.testing.assert_allclose(found["condition"], singular[0] / singular[-1], rtol=2e-2)


def test_an_absent_task_is_left_out():
    rows = jnp.array([[1.0, 0.0], [9.0, 9.0], [-1.0, 1.0]])
    found = telemetry.describe_gramian(rows @ rows.T, jnp.array([True, False, True]))
    np.testing.assert_allclose(found["mean_cosine"], -(0.5**0.5), rtol=1e-6)
    assert found["conflicting"] == 1
    assert (found["cosine"][1] == 0).all()
    assert found["condition"] < 10


@pytest.fixture(scope="module")
def measured():
    """(programs, state, batch, mean losses as a function of shared parameters)."""
    programs = Programs(set_up(EXPERIMENT, devices=1))
    state, batch = programs.create(0), programs.executor([0], 0).batch(0)
    shared, specific = partition(state.params)

    def losses(shared):
        outputs = programs.setup.parts.model.apply(
            {"params": join(shared, specific), **state.model_state}, batch["image"], train=False
        )
        pairs = [
            task.loss(outputs[task.name], batch["labels"][task.name], batch["present"][task.name])
            for task in EXPERIMENT.tasks
        ]
        return jnp.stack([total / count for total, count in pairs])

    return programs, state, batch, losses, shared


@pytest.mark.full
def test_the_gramian_is_that_of_gradients_taken_one_by_one(measured):
    programs, state, batch, losses, shared = measured
    rows = [jax.grad(lambda p, t=t: losses(p)[t])(shared) for t in range(2)]
    flat = np.stack([np.concatenate([np.ravel(x) for x in jax.tree.leaves(row)]) for row in rows])
    found = programs.telemetry(copy_for_measurement(state), state.params, batch)
    np.testing.assert_allclose(found["gramian"], flat @ flat.T, rtol=1e-4)
    assert found["curvature"] == 0, "no update"


@pytest.mark.full
def test_curvature_is_that_of_the_losses_along_the_update(measured):
    programs, state, batch, losses, shared = measured
    flat, unravel = ravel_pytree(shared)
    gradient = jax.grad(lambda x: losses(unravel(x)).sum())
    update = jax.random.normal(jax.random.key(1), flat.shape)
    _, specific = partition(state.params)
    after = state.replace(params=join(unravel(flat + 1e-2 * update), specific))
    found = programs.telemetry(copy_for_measurement(state), after.params, batch)["curvature"]
    expected = update @ jax.jvp(gradient, (flat,), (update,))[1] / (update @ update)
    # The update is a difference of parameters in float32.
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-6)


@pytest.mark.full
def test_affinity_is_what_trial_steps_do(measured):
    programs, state, batch, losses, shared = measured
    affinity = make_affinity(programs.setup.probe, 0.1)(state, None, batch)
    for i in range(2):
        gradient = jax.grad(lambda p, i=i: losses(p)[i])(shared)
        moved = jax.tree.map(lambda p, g: p - 0.1 * g, shared, gradient)
        np.testing.assert_allclose(affinity[i], 1 - losses(moved) / losses(shared), atol=2e-6)
    assert (jnp.diagonal(affinity) > 0).all()


def test_the_interval_is_a_multiple_of_lines_and_none_for_one_task():
    every = lambda **changes: telemetry_interval(dataclasses.replace(EXPERIMENT, **changes))
    assert every() == 100
    assert every(log_every=400) == 4000
    assert every(telemetry_every=25) == 30
    assert every(telemetry_every=0) == 0
    assert every(tasks=EXPERIMENT.tasks[:1]) == 0


def test_a_summary_is_a_mean_over_training():
    lines = [
        {
            "conflicting": 0.0,
            "mean_cosine": 0.5,
            "mean_magnitude_similarity": 1.0,
            "condition": 1.0,
            "curvature": 2.0,
        },
        {
            "conflicting": 1.0,
            "mean_cosine": 0.1,
            "mean_magnitude_similarity": 0.5,
            "condition": 4.0,
            "curvature": -1.0,
        },
    ]
    found = telemetry.summary(lines)
    expected = {"conflicting": 0.5, "mean_cosine": 0.3, "mean_magnitude_similarity": 0.75}
    assert found == pytest.approx({**expected, "condition": 2.0, "curvature": 0.5})
    assert telemetry.summary([]) == {}
