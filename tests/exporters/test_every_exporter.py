"""Everything there is can be exported, with any number of images: trunks, fusions, tasks."""

import dataclasses
import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support.exporters import NETWORKS, assert_equal, used_alone
from support.models import FITTING_TRUNK, SMALL_FUSIONS, SMALL_TRUNKS, shapes

from mtljax.build import build
from mtljax.config import Data, Experiment, find_experiment
from mtljax.exporters import EXPORTS
from mtljax.exporters.model import model_of
from mtljax.models import FUSIONS, TRUNKS
from mtljax.models.partition import TRANSIENT_COLLECTIONS
from mtljax.runs.load import TrainedModel
from mtljax.step.train_step import TrainState
from mtljax.tasks import TASKS, Classification, Depth

SCENES = find_experiment("scenes_all").tasks
SHAPE = (16, 16, 3)
TWO = (Classification(name="class", num_classes=3), Classification(name="other", num_classes=4))


def text(name, arguments):
    """As on the command line."""
    words = ",".join(f"{key}={value}" for key, value in arguments.items())
    return f"{name}:{words}".replace(" ", "") if words else name


def draw(random, path, leaf):
    """A parameter as large as in a trained network, so that its outputs are well conditioned."""
    noise = random.normal(size=leaf.shape).astype(leaf.dtype)
    if path[-1].key in ("scale", "var", "std"):
        return 1 + 0.1 * np.tanh(noise)
    return noise * np.sqrt(2 / math.prod(leaf.shape[:-1])) if leaf.ndim > 1 else 0.1 * noise


def trained(trunk, fusion="none", tasks=TWO, shape=SHAPE):
    """A network with parameters at random, as if it had been trained."""
    data = Data(source="none")
    experiment = Experiment(name="any", tasks=tasks, data=data, trunk=trunk, fusion=fusion)
    model = build(experiment, mean=0.2, std=0.9).model
    like = dict(shapes(model, jnp.zeros((1, *shape)), train=False)[1])
    for name in TRANSIENT_COLLECTIONS:
        like.pop(name, None)
    variables = jax.tree.map_with_path(functools.partial(draw, np.random.default_rng(0)), like)
    nothing = dict.fromkeys(("opt_state", "balancer_state", "ema", "key"))
    zero = dict.fromkeys(("step", "skipped", "skipped_in_row"), 0)
    state = TrainState(params=variables.pop("params"), model_state=variables, **nothing, **zero)
    return TrainedModel(experiment, model, state, 0, shape, "float32", 0.0, 1.0)


def narrow(task):
    """A task whose head reads no more than two stages."""
    return dataclasses.replace(task, width=8, levels=2) if hasattr(task, "levels") else task


def images(count, shape=SHAPE):
    return np.random.default_rng(0).uniform(size=(count, *shape)).astype(np.float32)


def check(made, to, folder):
    """That a model says the same from its file, for several numbers of images."""
    model = model_of(made)
    (folder / "file").write_bytes(EXPORTS[to](model)[""])
    batches = [images(2, made.shape), images(3, made.shape)]
    for batch, found in zip(batches, used_alone(to, folder / "file", batches, folder), strict=True):
        assert_equal(found, jax.jit(model.outputs)(batch))


@pytest.mark.slow
@pytest.mark.parametrize("to", NETWORKS)
@pytest.mark.parametrize("trunk", TRUNKS)
def test_every_trunk(trunk, to, tmp_path):
    check(trained(text(trunk, SMALL_TRUNKS[trunk])), to, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("to", NETWORKS)
@pytest.mark.parametrize("fusion", FUSIONS)
def test_every_fusion(fusion, to, tmp_path):
    trunk = FITTING_TRUNK.get(fusion, "mlp")
    trunk = "cnn" if trunk == "strided" else trunk
    made = trained(text(trunk, SMALL_TRUNKS[trunk]), text(fusion, SMALL_FUSIONS.get(fusion, {})))
    check(made, to, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("to", NETWORKS)
@pytest.mark.parametrize("decoder", ["linear", "fpn", "aspp"])
def test_every_decoder(decoder, to, tmp_path):
    tasks = (Depth(name="depth", decoder=decoder, width=8, levels=2),)
    check(trained(text("cnn", SMALL_TRUNKS["cnn"]), tasks=tasks), to, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("to", NETWORKS)
@pytest.mark.parametrize("task", SCENES, ids=lambda task: task.name)
def test_every_kind_of_task(task, to, tmp_path):
    check(trained(text("cnn", SMALL_TRUNKS["cnn"]), tasks=(narrow(task),)), to, tmp_path)


def test_these_are_all_kinds_of_task():
    assert {type(task) for task in SCENES} == set(TASKS.values())


@pytest.mark.slow
@pytest.mark.parametrize("to", NETWORKS)
@pytest.mark.parametrize("trunk", ["efficientnet_lite0", "resnet18:norm=group", "vit_ti:patch=8"])
def test_real_trunks_with_all_twelve_tasks_of_the_scenes(trunk, to, tmp_path):
    check(trained(trunk, tasks=SCENES, shape=(64, 64, 3)), to, tmp_path)
