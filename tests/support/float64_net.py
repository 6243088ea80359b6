"""A network with three tasks whose losses and gradients are written down in NumPy, float64."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn
from support.own_models import Squared

import mtljax
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
    """z = tanh(tanh(x V) W) for all tasks, and the output tanh(z A_t) c_t of task t."""

    is_marked: bool = True

    @nn.compact
    def __call__(self, image, *, train):
        z = jnp.tanh(nn.Dense(6, use_bias=False, name="bottom")(image))
        z = jnp.tanh(nn.Dense(4, use_bias=False, name="trunk")(z))
        z = mark_representation(self, z) if self.is_marked else z
        return {name: Head(name="task_" + name)(z) for name in NAMES}


def batch_of(seed, size=6):
    """Labels of each task are present with probability 0.8."""
    rng = np.random.default_rng(seed)
    present = {name: rng.random(size) < 0.8 for name in NAMES}
    labels = {name: rng.standard_normal(size).astype(np.float32) for name in NAMES}
    image = rng.standard_normal((size, 5)).astype(np.float32)
    return {"image": image, "labels": labels, "present": present}


def state_and_step(balancer, batch, model=None, **options):
    """(state of step 0, jitted step of plain descent with rate 1)"""
    parts = Net() if model is None else model, TASKS, balancer, OPTIMIZER
    level = {"level": options["level"]} if "level" in options else {}
    state = mtljax.create_state(jax.random.key(0), *parts, batch, **level)
    return state, jax.jit(mtljax.make_train_step(*parts, **options))


def in_float64(params):
    """([V, W], [[A_t, c_t] of each task])"""
    params = jax.tree.map(lambda x: np.asarray(x, np.float64), params)
    heads = [[params["task_" + n][k]["kernel"] for k in ("first", "second")] for n in NAMES]
    return [params[name]["kernel"] for name in ("bottom", "trunk")], heads


class Losses:
    """The losses of one batch as functions of the parameters, and their gradients."""

    def __init__(self, batch):
        self.image = np.float64(batch["image"])
        self.labels = [np.float64(batch["labels"][name]) for name in NAMES]
        self.present = [np.float64(batch["present"][name]) for name in NAMES]

    def features(self, shared):
        bottom = np.tanh(self.image @ shared[0])
        return bottom, np.tanh(bottom @ shared[1])

    def loss(self, t, shared, head):
        rest = (np.tanh(self.features(shared)[1] @ head[0]) @ head[1])[:, 0] - self.labels[t]
        return (self.present[t] * rest**2).sum() / self.present[t].sum()

    def backward(self, t, shared, head):
        """Derivatives by the outputs and by the inputs of the head's hidden layer."""
        hidden = np.tanh(self.features(shared)[1] @ head[0])
        rest = (hidden @ head[1])[:, 0] - self.labels[t]
        rest = 2 * self.present[t] * rest / self.present[t].sum()
        return hidden, rest, rest[:, None] * (1 - hidden**2) * head[1][:, 0]

    def by_z(self, t, shared, head):
        return self.backward(t, shared, head)[2] @ head[0].T

    def by_shared(self, t, shared, head):
        bottom, z = self.features(shared)
        top = (1 - z**2) * self.by_z(t, shared, head)
        return [self.image.T @ ((1 - bottom**2) * (top @ shared[1].T)), bottom.T @ top]

    def by_head(self, t, shared, head):
        hidden, rest, inner = self.backward(t, shared, head)
        return [self.features(shared)[1].T @ inner, hidden.T @ rest[:, None]]


def flat(arrays):
    return np.concatenate([x.ravel() for x in arrays])


def plus(arrays, factor, others):
    return [x + factor * y for x, y in zip(arrays, others, strict=True)]


def moved(before, after):
    """(step along [V, W], steps along [A_t, c_t]) from one state to the next, descending."""
    return in_float64(jax.tree.map(jnp.subtract, before.params, after.params))
