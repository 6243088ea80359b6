"""Several inputs per example: pytrees of arrays in place of images."""

import typing

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import PartitionSpec as P
from support.own_models import Squared, squared_batch

import mtljax
from mtljax.balancing import mgda, pcgrad
from mtljax.data import make_augment
from mtljax.data.base import Arrays
from mtljax.evaluation.evaluator import Evaluator
from mtljax.parallel import place
from mtljax.step.attacks import fgsm
from mtljax.step.train_step import make_train_step

TASKS = Squared(name="a"), Squared(name="b")
OPTIMIZER = optax.sgd(0.1)


class Views(typing.NamedTuple):
    left: typing.Any
    right: typing.Any


class Net(nn.Module):
    """Reads every array of its input, which may be any pytree."""

    @nn.compact
    def __call__(self, image, *, train):
        flat = [x.reshape(x.shape[0], -1).astype(jnp.float32) for x in jax.tree.leaves(image)]
        x = nn.relu(nn.Dense(8, name="trunk")(jnp.concatenate(flat, 1)))
        return {k: nn.Dense(1, name="task_" + k)(x)[:, 0] for k in "ab"}


def batch_of(kind, size=32):
    """A batch with another form of input."""
    batch = squared_batch(size)
    image = batch["image"]
    batch["image"] = {
        "dict": {"left": image, "right": 2 * image, "meta": image.mean((1, 2))},
        "tuple": (image, {"id": np.arange(size, dtype=np.int32) % 3}),
        "named": Views(image, image[:, :4]),
        "clip": np.stack([image] * 3, 1),
        "uint16": (image * 65535).astype(np.uint16),
    }[kind]
    batch["present"]["a"] = np.arange(size) % 3 > 0
    return batch


KINDS = ("dict", "tuple", "named", "clip", "uint16")


def start(batch, balancer=None):
    parts = TASKS, balancer or pcgrad(), OPTIMIZER
    return mtljax.create_state(jax.random.key(0), Net(), *parts, batch)


def make(balancer=None, **options):
    return make_train_step(Net(), TASKS, balancer or pcgrad(), OPTIMIZER, **options)


def close(a, b):
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, atol=1e-6), a, b)


@pytest.mark.parametrize("kind", KINDS)
def test_a_step_takes_any_form_of_input(kind):
    batch = batch_of(kind)
    state = start(batch)
    new, logs = jax.jit(make())(state, batch)
    # The same step on the concatenation of the arrays: Net sees the same numbers.
    flat = [np.reshape(x, (32, -1)).astype(np.float32) for x in jax.tree.leaves(batch["image"])]
    expected, expected_logs = jax.jit(make())(state, {**batch, "image": np.concatenate(flat, 1)})
    close((new.params, logs), (expected.params, expected_logs))
    assert int(logs["skipped"]) == 0


def test_microbatches_of_several_inputs_give_the_same_step():
    batch = batch_of("dict")
    state = start(batch, mgda())
    whole, _ = jax.jit(make(mgda()))(state, batch)
    parts, _ = jax.jit(make(mgda(), microbatches=4))(state, batch)
    close(whole.params, parts.params)


@pytest.mark.parametrize("how", ["pmap", "shard_map"])
def test_several_inputs_are_sharded(how):
    batch = batch_of("dict")
    state, step = start(batch), make(axis_name="batch")
    expected, _ = jax.jit(make())(state, batch)
    if how == "pmap":
        states = jax.tree.map(lambda x: jnp.stack([x] * 4), state)
        shards = jax.tree.map(lambda x: x.reshape(4, -1, *x.shape[1:]), batch)
        new, _ = jax.pmap(step, axis_name="batch", devices=jax.devices()[:4])(states, shards)
        new = jax.tree.map(lambda x: x[0], new.params)
    else:
        mesh = place(32, 4).mesh
        specs = {"in_specs": (P(), P("batch")), "out_specs": P(), "check_vma": False}
        new = jax.jit(jax.shard_map(step, mesh=mesh, **specs))(state, batch)[0].params
    close(new, expected.params)


@pytest.mark.parametrize("kind", ["dict", "clip"])
def test_an_evaluation_of_several_inputs_is_exact(kind):
    batch = batch_of(kind, size=30)
    state = start(batch)
    outputs = Net().apply({"params": state.params}, batch["image"], train=False)
    expected = ((outputs["a"] - batch["labels"]["a"]) ** 2)[batch["present"]["a"]].mean()
    split = Arrays(**batch)
    evaluator = Evaluator(Net(), TASKS, split, 8, place(8, 4), keep_on_device=False)
    metrics, predictions = evaluator.metrics_and_predictions(state)
    np.testing.assert_allclose(metrics["a"]["loss"], expected, rtol=1e-6)
    close(predictions.images, batch["image"])
    of_step = mtljax.make_eval_step(Net(), TASKS)(state, batch)
    np.testing.assert_allclose(mtljax.compute_metrics(TASKS, [of_step])["a"]["loss"], expected)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"attack": fgsm(0.1)}, "an attack changes one array of images"),
        ({"augment": make_augment(("jitter",), ())}, "augmentations take one array of images"),
        ({"augment": make_augment(("shift:pixels=1",), TASKS)}, "augmentations take one array"),
        ({"augment": make_augment(("mixup",), TASKS)}, "augmentations take one array of images"),
    ],
)
def test_what_needs_one_picture_refuses_several_inputs(options, message):
    batch = batch_of("dict")
    with pytest.raises(ValueError, match=message):
        make(**options)(start(batch), batch)


def test_an_augmentation_of_your_own_may_take_several_inputs():
    batch = batch_of("dict")

    def augment(keys, batch):
        noise = jax.vmap(lambda key: jax.random.normal(key, (8, 8, 1)))(keys)
        return {**batch, "image": {**batch["image"], "left": batch["image"]["left"] + noise}}

    _, logs = make(augment=augment)(start(batch), batch)
    assert np.isfinite(logs["grad_norm"])


def test_inputs_of_different_lengths_are_refused():
    batch = batch_of("dict")
    batch["image"]["meta"] = batch["image"]["meta"][1:]
    with pytest.raises(ValueError, match=r"image/left 32, image/meta 31"):
        start(batch)
