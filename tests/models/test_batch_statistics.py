"""Running statistics of batch normalization: their decay, and how far they are from converged."""

import functools
import inspect

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support.problem import make, make_balancer, make_batch, make_model

from mtljax.config import Data, Experiment
from mtljax.data.pipeline import read_split
from mtljax.models import TRUNKS
from mtljax.models.batch_statistics import cumulative_statistics, warmed_up_statistics
from mtljax.models.layers import Norm
from mtljax.tasks import Classification
from mtljax.training.programs import Programs
from mtljax.training.setup import set_up
from mtljax.training.steps import take_steps
from mtljax.utils.tree import flatten


def average(batches, momentum, microbatches=1):
    """Running (mean, variance) of a layer after one update per `microbatches` of the batches."""
    layer = nn.BatchNorm(use_running_average=False, momentum=momentum)
    variables = jax.eval_shape(layer.init, jax.random.key(0), batches[0])
    variables = jax.tree.map(lambda x: jnp.zeros(x.shape), variables)
    variables["batch_stats"]["var"] += 1
    for i, batch in enumerate(batches):
        updates = jnp.asarray(i // microbatches)
        with warmed_up_statistics(updates, microbatches=microbatches):
            changed = layer.apply(variables, batch, mutable="batch_stats")[1]
        variables = {**variables, **changed}
    return variables["batch_stats"]["mean"], variables["batch_stats"]["var"]


def batches_of(count):
    rng = np.random.default_rng(0)
    return [rng.normal(3 + i, 2 + i, size=(16, 4)).astype(np.float32) for i in range(count)]


@pytest.mark.parametrize("count", [1, 2, 7])
def test_running_statistics_are_a_weighted_mean_of_training_batches_alone(count):
    batches = batches_of(count)
    weights = np.ones(count)
    for n in range(count):  # batch n gets 1 - n / (n + 9), and all before it the rest
        weights[:n] *= n / (n + 9)
        weights[n] = 9 / (n + 9)
    assert np.isclose(weights.sum(), 1)  # nothing is left for the initial mean 0 and variance 1
    mean, var = average(batches, 0.99)
    np.testing.assert_allclose(mean, weights @ [x.mean(0) for x in batches], rtol=1e-4)
    np.testing.assert_allclose(var, weights @ [x.var(0) for x in batches], rtol=1e-4)


def test_the_momentum_of_a_layer_limits_the_window():
    *_, before, last = batches = batches_of(12)
    mean, _ = average(batches, 0.0)
    np.testing.assert_allclose(mean, last.mean(0), rtol=1e-5)
    mean, _ = average(batches, 0.1)  # below the warm-up from the second update on
    old = average(batches[:-2], 0.1)[0]
    expected = 0.9 * last.mean(0) + 0.1 * (0.9 * before.mean(0) + 0.1 * old)
    np.testing.assert_allclose(mean, expected, rtol=1e-5)


def test_the_window_is_counted_in_updates_not_in_microbatches():
    one, two = batches_of(2)
    halves = [one, one, two, two]
    np.testing.assert_allclose(
        average(halves, 0.9, microbatches=2), average([one, two], 0.9), rtol=1e-5
    )


def first_layer_inputs(state, batch):
    """Inputs of the first normalization: the image normalized by 0.8, times the kernel."""
    image = np.asarray(batch["image"], np.float64).reshape(len(batch["image"]), -1) / 0.8
    dense = state.params["fusion"]["trunk_0"]["Dense_0"]
    return image @ np.asarray(dense["kernel"], np.float64) + dense["bias"]


@pytest.mark.full
@pytest.mark.parametrize("remat", [False, True])
def test_a_step_replaces_the_initial_statistics_unless_it_is_skipped(remat):
    model = make_model(widths=(8,), norm="batch", remat=remat)
    state, step = make(make_balancer("ew"), model=model)
    step, batch = jax.jit(step), make_batch(0)
    bad = {**batch, "image": jnp.full_like(batch["image"], jnp.nan)}
    before, _ = step(state, bad)
    assert int(before.skipped) == 1
    after, _ = step(before, batch)
    # Mean and variance, and no further state: old checkpoints fit.
    inputs = first_layer_inputs(before, batch)
    layer = {"mean": inputs.mean(0), "var": inputs.var(0)}
    expected = {"fusion": {"trunk_0": {"Norm_0": {"BatchNorm_0": layer}}}}
    close = functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-5)
    # The same tree as ever, so that old checkpoints fit.
    jax.tree.map(close, dict(after.model_state["batch_stats"]), expected)


@pytest.mark.parametrize("name", TRUNKS)
def test_every_trunk_with_batch_normalization_has_its_momentum_as_an_argument(name):
    parameters = inspect.signature(TRUNKS[name]).parameters
    assert ("momentum" in parameters) == ("norm" in parameters)
    if "momentum" in parameters:
        published = 0.99 if name == "efficientnet_lite0" else 0.9
        assert parameters["momentum"].default == published


IMAGE = jnp.zeros((1, 4, 4, 1))


@pytest.mark.parametrize("momentum", [1.0, -0.1, 10.0])
def test_a_momentum_outside_0_to_1_is_refused(momentum):
    model = make_model("cnn", widths=(2,), blocks=1, norm="batch", momentum=momentum)
    with pytest.raises(ValueError, match=r"momentum must be in \[0, 1\), not"):
        jax.eval_shape(
            lambda x: model.init(jax.random.key(0), x, train=True), jnp.zeros((1, 4, 4, 1))
        )


def re_estimated(programs, state, momentum):
    """The state with the statistics of the entire training data as one batch."""
    model, train = programs.setup.parts.model, read_split(programs.setup.source.train)
    zeros = jax.tree.map(jnp.zeros_like, state.model_state["batch_stats"])
    variables = {**state.variables, "batch_stats": zeros}
    _, changed = model.apply(variables, train["image"], train=True, mutable="batch_stats")
    full = jax.tree.map(lambda x: x / (1 - momentum), changed["batch_stats"])
    return state.replace(model_state={**state.model_state, "batch_stats": full})


def accuracy_on_unseen(programs, state):
    """Accuracy on validation and test together: 504 images."""
    source = programs.setup.source
    parts = [
        (programs.validation.metrics(state), len(source.validation)),
        (programs.test.metrics(state), len(source.test)),
    ]
    correct = [metrics["digit"]["accuracy"] * size for metrics, size in parts]
    return sum(correct) / sum(size for _, size in parts)


@pytest.mark.slow
@pytest.mark.parametrize("momentum", [0.9, 0.99])
@pytest.mark.parametrize("learning_rate", [1e-3, 6e-3])
def test_accuracy_is_that_of_statistics_of_the_entire_training_data(learning_rate, momentum):
    experiment = Experiment(
        name="digits",
        tasks=(Classification(name="digit", num_classes=10),),
        data=Data(source="digits", batch_size=64),
        trunk=f"cnn:norm=batch,momentum={momentum}",
        steps=416,
        learning_rate=learning_rate,
        eval_every=52,
    )
    programs, gaps = Programs(set_up(experiment, devices=1)), {}
    for chunk in take_steps(programs, [0], programs.create(0), 0):
        if chunk.step % 52 == 0 and chunk.step >= 200:
            estimated = re_estimated(programs, chunk.state, momentum)
            states = chunk.state, estimated
            running, full = (accuracy_on_unseen(programs, state) for state in states)
            gaps[chunk.step] = running - full
    assert list(gaps) == [208, 260, 312, 364, 416]
    assert max(map(abs, gaps.values())) <= 0.005, gaps
    assert full > 0.97


def test_statistics_of_16_bit_maps_are_computed_and_kept_in_32_bits():
    rng = np.random.default_rng(0)
    maps = jnp.asarray(rng.normal(100, 1, size=(64, 8, 8, 4)), jnp.bfloat16)
    layer = Norm("batch", momentum=0.0)
    variables = layer.init(jax.random.key(0), maps, train=True)
    # As the train step does.
    variables["params"] = jax.tree.map(lambda x: x.astype(jnp.bfloat16), variables["params"])
    out, changed = layer.apply(variables, maps, train=True, mutable="batch_stats")
    kept = {path[-1].key: x for path, x in jax.tree.leaves_with_path(changed["batch_stats"])}
    exact = np.asarray(maps, np.float64)
    assert out.dtype == jnp.bfloat16
    assert {x.dtype for x in kept.values()} == {jnp.dtype("float32")}
    np.testing.assert_allclose(kept["mean"], exact.mean((0, 1, 2)), rtol=1e-6)
    # E[x^2] - E[x]^2 loses four digits at this mean; in 16 bits it would lose all.
    np.testing.assert_allclose(kept["var"], exact.var((0, 1, 2)), rtol=2e-3)


@pytest.mark.parametrize("layer", [nn.BatchNorm(), Norm("batch")])
def test_cumulative_statistics_are_means_over_batches_in_evaluation_mode(layer):
    batches = list(map(jnp.asarray, batches_of(4)))
    mode = {"use_running_average": True} if isinstance(layer, nn.BatchNorm) else {"train": False}
    variables = layer.init(jax.random.key(0), batches[0], **mode)
    for number, batch in enumerate(batches):
        with cumulative_statistics(number):
            out, changed = layer.apply(variables, batch, **mode, mutable="batch_stats")
        expected = (batch - batch.mean(0)) / np.sqrt(batch.var(0) + 1e-5)
        np.testing.assert_allclose(out, expected, atol=1e-4)
        variables = {**variables, **changed}
    mean, var = (x for _, x in sorted(flatten(variables["batch_stats"]).items()))
    np.testing.assert_allclose(mean, sum(x.mean(0) for x in batches) / 4, rtol=1e-5)
    np.testing.assert_allclose(var, sum(x.var(0) for x in batches) / 4, rtol=1e-4)
