"""Export of some tasks of a run: the others leave no outputs and no weights."""

import dataclasses
import json

import flax.linen as nn
import jax
import numpy as np
import pytest
from support.exporters import NETWORKS, assert_equal, used_alone
from support.own_models import Squared

import mtljax
from mtljax import models
from mtljax.config import Data, Experiment
from mtljax.data import from_arrays
from mtljax.exporters import EXPORTS
from mtljax.exporters.model import model_of
from mtljax.main import main
from mtljax.runs.load import load_run
from mtljax.tasks import Classification, Regression
from mtljax.utils.safetensors import unpack

TASKS = (
    Classification(name="kind", num_classes=3),
    Regression(name="size", center=0.0, scale=1.0),
    Regression(name="width", center=0.0, scale=1.0),
)


@pytest.fixture(scope="module", params=["none", "cgc"])
def run(request, tmp_path_factory):
    """A run of three tasks."""
    random = np.random.default_rng(0)
    labels = {
        "kind": np.arange(60, dtype=np.int32) % 3,
        "size": random.random(60, np.float32),
        "width": random.random(60, np.float32),
    }
    experiment = Experiment(
        name="three",
        tasks=TASKS,
        data=Data(source="arrays", batch_size=16),
        trunk="mlp:widths=(256,64)",
        fusion=request.param,
        steps=2,
    )
    source = from_arrays(random.random((60, 4, 4, 1), np.float32), labels)
    workdir = tmp_path_factory.mktemp("export") / "run"
    mtljax.train(experiment, workdir, source=source, quiet=True)
    return workdir


def export(run, to, file, *flags):
    assert main(["export", "--run", str(run), "--to", to, "--output", str(file), *flags]) == 0
    return file


@pytest.mark.parametrize("to", NETWORKS)
@pytest.mark.parametrize("flags", [("--tasks", "width,kind"), ("--tasks", "kind", "width")])
def test_the_outputs_of_some_tasks_are_those_of_the_run(to, flags, run, tmp_path):
    file = export(run, to, tmp_path / "model", *flags)
    batch = np.random.default_rng(1).random((5, 4, 4, 1), np.float32)
    (found,) = used_alone(to, file, [batch], tmp_path)
    expected = jax.jit(model_of(load_run(run)).outputs)(batch)
    names = {f"{task}/{part}" for task in ("kind", "width") for part in ("output", "prediction")}
    assert set(found) == names
    assert_equal(found, {name: x for name, x in expected.items() if name in names})


@pytest.mark.parametrize("to", NETWORKS)
def test_the_weights_of_other_tasks_are_not_in_the_file(to, run, tmp_path):
    def sizes(*flags):
        """Size of the file, and of the weights that it needs."""
        weights = export(run, "safetensors", tmp_path / "weights", *flags)
        needed = sum(x.nbytes for x in unpack(weights.read_bytes(), "it").values())
        return np.array([export(run, to, tmp_path / "model", *flags).stat().st_size, needed])

    file, weights = sizes() - sizes("--tasks", "size")
    assert weights >= 4 * 4 * 64  # the heads of three classes and of a number
    assert file >= 0.9 * weights


def test_the_weights_are_those_that_the_outputs_depend_on(run, tmp_path):
    file = export(run, "safetensors", tmp_path / "weights", "--tasks", "size")
    found = unpack(file.read_bytes(), "it")
    every = unpack(export(run, "safetensors", tmp_path / "all").read_bytes(), "it")
    assert found.keys() < every.keys()
    assert {"params/task_size/Dense_0/kernel", "constants/mean", "constants/std"} <= found.keys()
    others = [name for name in every if "kind" in name or "width" in name]
    assert others
    assert not found.keys() & set(others)
    for name, array in found.items():
        np.testing.assert_array_equal(array, every[name])


def test_the_description_lists_the_exported_tasks(run, tmp_path, capsys):
    file = export(run, "stablehlo", tmp_path / "model", "--tasks", "size")
    assert "size/output" in (out := capsys.readouterr().out)
    assert "kind" not in out
    description = json.loads(file.with_name("model.json").read_text())
    assert list(description["tasks"]) == ["size"]
    assert list(description["outputs"]) == ["size/output", "size/prediction"]


def test_an_unknown_task_is_refused_with_the_nearest(run, capsys):
    assert main(["export", "--run", str(run), "--to", "safetensors", "--tasks", "kind,widht"]) == 2
    assert "no task 'widht'; did you mean 'width'?" in capsys.readouterr().err


class FixedSize(nn.Module):
    """A head that needs to know the number of images."""

    @nn.compact
    def __call__(self, features, *, size, train):
        return nn.Dense(1)(features[-1].reshape(len(features[-1]), -1))[:, 0]


@dataclasses.dataclass(frozen=True, kw_only=True)
class FixedSizeTask(Squared):
    def head(self):
        return FixedSize()


def test_a_head_that_needs_the_batch_size_is_refused_in_one_line(run):
    trained = load_run(run)
    head = FixedSizeTask(name="kind")
    model = models.build(trained.model.fusion.trunk, models.FUSIONS["none"], [head])
    variables = model.init(jax.random.key(0), np.zeros((1, 4, 4, 1), np.float32), train=False)
    state = trained.state.replace(
        params=variables["params"], model_state={"constants": variables["constants"]}
    )
    experiment = dataclasses.replace(trained.experiment, tasks=(head,))
    changed = model_of(trained._replace(experiment=experiment, model=model, state=state))
    with pytest.raises(ValueError, match=r"cannot be exported for every batch size .* len\(x\)"):
        EXPORTS["stablehlo"](changed)
