"""Twelve tasks of eleven kinds at once, with every way of sharing a trunk."""

import dataclasses

import jax
import numpy as np
import pytest

from mtljax.build import build, open_source, train_step
from mtljax.config import find_experiment
from mtljax.data.pipeline import read_batch
from mtljax.models import FUSIONS
from mtljax.step.state import create_state

SMALL_TRUNKS = {
    "task_prompt": "vit_ti:width=8,heads=2,depth=4,stages=4,patch=4,image_size=32",
    "others": "cnn:widths=(8,8,8,8),blocks=1",
}
DEFAULT = ("none",)
"""In the tier `full`. The others are slow: each compiles a step of twelve tasks."""


def small(fusion):
    """The experiment, but quick to compile: narrow, and with two small images."""
    experiment = find_experiment("scenes_all")
    tasks = tuple(
        dataclasses.replace(task, width=8) if hasattr(task, "width") else task
        for task in experiment.tasks
    )
    return dataclasses.replace(
        experiment,
        tasks=tasks,
        data=dataclasses.replace(
            experiment.data, source="scenes:size=32,train=2,validation=1,test=1", batch_size=2
        ),
        trunk=SMALL_TRUNKS.get(fusion, SMALL_TRUNKS["others"]),
        fusion=fusion,
    )


def quick_state(*arguments):
    """A state with parameters at random, without compiling what draws them."""
    key = jax.random.key(0)
    state = jax.eval_shape(lambda: create_state(key, *arguments))
    draw = np.random.default_rng(0)
    is_key = lambda leaf: jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key)
    ones = lambda leaf: key if is_key(leaf) else np.ones(leaf.shape, leaf.dtype)
    normal = lambda leaf: draw.normal(scale=0.2, size=leaf.shape).astype(leaf.dtype)
    return jax.tree.map(ones, state).replace(params=jax.tree.map(normal, state.params))


@pytest.mark.parametrize(
    "fusion",
    [
        pytest.param(f, marks=pytest.mark.full if f in DEFAULT else pytest.mark.slow)
        for f in FUSIONS
    ],
)
def test_a_step_is_taken_with_every_fusion(fusion):
    experiment = small(fusion)
    source = open_source(experiment)
    batch = read_batch(source.train, np.arange(2))
    parts = build(experiment, source.mean, source.std)
    state = quick_state(parts.model, experiment.tasks, parts.balancer, parts.optimizer, batch)
    new, logs = jax.jit(train_step(experiment, parts))(state, batch)
    assert int(logs["skipped"]) == 0
    assert set(logs["loss"]) == {task.name for task in experiment.tasks}
    assert all(np.isfinite(loss) and loss > 0 for loss in logs["loss"].values())
    moved = jax.tree.map(lambda a, b: bool((a != b).any()), state.params, new.params)
    assert sum(jax.tree.leaves(moved)) > 0.9 * len(jax.tree.leaves(moved))
