"""ConsMTL's gradient of the heads, against float64 from its definition, and where it is refused."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn
from jax.sharding import PartitionSpec
from support.balancing_references import alpha_fair
from support.own_models import Squared
from support.problem import make, relative_difference

import mtljax
from mtljax import parallel
from mtljax.balancing import consmtl, fairgrad
from mtljax.models import mark_representation

NAMES = "abc"
TASKS = tuple(Squared(name=name) for name in NAMES)
OPTIMIZER = optax.sgd(1.0)


class Head(nn.Module):
    @nn.compact
    def __call__(self, z):
        hidden = jnp.tanh(nn.Dense(3, use_bias=False, name="first")(z))
        return nn.Dense(1, use_bias=False, name="second")(hidden)[:, 0]


class Net(nn.Module):
    """z = tanh(W x) for all tasks, and the output c_t . tanh(A_t z) of task t."""

    is_marked: bool = True

    @nn.compact
    def __call__(self, image, *, train):
        z = jnp.tanh(nn.Dense(4, use_bias=False, name="trunk")(image))
        z = mark_representation(self, z) if self.is_marked else z
        return {name: Head(name="task_" + name)(z) for name in NAMES}


def batch_of(seed, size=6):
    rng = np.random.default_rng(seed)
    present = {name: rng.random(size) < 0.8 for name in NAMES}
    labels = {name: rng.standard_normal(size).astype(np.float32) for name in NAMES}
    image = rng.standard_normal((size, 5)).astype(np.float32)
    return {"image": image, "labels": labels, "present": present}


def states_and_step(balancer, batch, **options):
    """(state before, state after one step)"""
    parts = Net(), TASKS, balancer, OPTIMIZER
    level = {"level": options["level"]} if "level" in options else {}
    state = mtljax.create_state(jax.random.key(0), *parts, batch, **level)
    return state, jax.jit(mtljax.make_train_step(*parts, **options))


class Float64:
    """Losses and their derivatives by z in closed form; those by the heads by differences."""

    def __init__(self, params, batch):
        params = jax.tree.map(lambda x: np.asarray(x, np.float64), params)
        self.trunk = params["trunk"]["kernel"]
        self.heads = [
            [params["task_" + name][layer]["kernel"] for layer in ("first", "second")]
            for name in NAMES
        ]
        self.image = np.float64(batch["image"])
        self.z = np.tanh(self.image @ self.trunk)
        self.labels = [np.float64(batch["labels"][name]) for name in NAMES]
        self.present = [np.float64(batch["present"][name]) for name in NAMES]

    def loss(self, t, head):
        rest = (np.tanh(self.z @ head[0]) @ head[1])[:, 0] - self.labels[t]
        return (self.present[t] * rest**2).sum() / self.present[t].sum()

    def by_z(self, t, head):
        hidden = np.tanh(self.z @ head[0])
        rest = (hidden @ head[1])[:, 0] - self.labels[t]
        rest = 2 * self.present[t] * rest / self.present[t].sum()
        return (rest[:, None] * (1 - hidden**2) * head[1][:, 0]) @ head[0].T

    def by_trunk(self, t):
        return self.image.T @ ((1 - self.z**2) * self.by_z(t, self.heads[t]))

    def by_head(self, t, function):
        gradients = []
        for i, layer in enumerate(self.heads[t]):
            gradient = np.zeros_like(layer)
            for index in np.ndindex(*layer.shape):
                moved = [[x.copy() for x in self.heads[t]] for _ in range(2)]
                moved[0][i][index] += 1e-5
                moved[1][i][index] -= 1e-5
                gradient[index] = (function(moved[0]) - function(moved[1])) / 2e-5
            gradients.append(gradient)
        return gradients

    def step(self, strength, limit):
        """(gradient of the trunk, gradients of the heads) of ConsMTL."""
        tasks = range(len(NAMES))
        jacobian = np.stack([self.by_trunk(t).ravel() for t in tasks])
        weights = alpha_fair(jacobian, 2.0)
        update = sum(weights[t] * self.by_z(t, self.heads[t]) for t in tasks)
        heads = []
        size = lambda arrays: np.sqrt(sum((x**2).sum() for x in arrays))
        for t in tasks:
            own = self.by_head(t, lambda head, t=t: self.loss(t, head))
            term = lambda head, t=t: -strength * (self.by_z(t, head) * update).sum()
            extra = self.by_head(t, term)
            factor = min(1, limit * size(own) / size(extra))
            heads.append([a + factor * b for a, b in zip(own, extra, strict=True)])
        return (weights @ jacobian).reshape(self.trunk.shape), heads


@pytest.mark.parametrize(
    "arguments", [{}, {"strength": 0.5, "limit": 100.0}, {"strength": 50.0, "limit": 0.3}]
)
def test_the_step_is_that_of_float64(arguments):
    batch = batch_of(1)
    before, step = states_and_step(consmtl(**arguments), batch)
    after, _ = step(before, batch)
    trunk, heads = Float64(before.params, batch).step(**{"strength": 1.0, "limit": 0.1} | arguments)
    moved = jax.tree.map(lambda a, b: np.asarray(a) - np.asarray(b), before.params, after.params)
    expected = {"trunk": {"kernel": trunk}} | {
        "task_" + name: {"first": {"kernel": head[0]}, "second": {"kernel": head[1]}}
        for name, head in zip(NAMES, heads, strict=True)
    }
    assert relative_difference(expected, moved) <= 1e-4


@pytest.mark.parametrize("level", ["parameters", "features"])
def test_no_strength_is_fairgrad(level):
    batch = batch_of(2)
    before, step = states_and_step(consmtl(strength=0.0), batch, level=level)
    _, plain = states_and_step(fairgrad(alpha=2.0), batch, level=level)
    assert (
        relative_difference(plain(before, batch)[0].params, step(before, batch)[0].params) <= 1e-6
    )


@pytest.mark.parametrize("level", ["parameters", "features"])
def test_eight_devices_equal_one(level):
    batch = batch_of(3, size=16)
    before, step = states_and_step(consmtl(limit=0.5), batch, level=level)
    expected, _ = step(before, batch)
    placement = parallel.place(16, 8)
    _, local = states_and_step(consmtl(limit=0.5), batch, level=level, axis_name="batch")
    whole, part = PartitionSpec(), PartitionSpec("batch")
    mesh = {"mesh": placement.mesh, "in_specs": (whole, part), "out_specs": (whole, whole)}
    found, _ = jax.jit(jax.shard_map(local, check_vma=False, **mesh))(before, batch)
    assert relative_difference(expected.params, found.params) <= 1e-5


def test_a_model_without_a_representation_is_refused():
    parts = Net(is_marked=False), TASKS, consmtl(), OPTIMIZER
    with pytest.raises(ValueError, match="needs one representation"):
        mtljax.create_state(jax.random.key(0), *parts, batch_of(5))


def test_microbatches_are_refused():
    with pytest.raises(ValueError, match="microbatches=1"):
        make(consmtl(), microbatches=2)
