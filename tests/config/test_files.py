"""Experiments as data: written, read back, and checked."""

import dataclasses
import functools
import json

import flax.linen as nn
import optax
import pytest

from mtljax import balancing, models
from mtljax.build import build
from mtljax.config import Data, Experiment, find_experiment, from_json, read_config, to_json
from mtljax.config.files import experiment_names
from mtljax.tasks import TASKS, Classification, Regression

NEEDED = {
    "num_classes": 3,
    "num_labels": 3,
    "num_keypoints": 3,
    "labels": ("a", "b"),
    "names": ("a", "b"),
}
"""Values for the fields of tasks that have no default."""


def make(kind):
    """A task of a kind, with a value for every field that needs one."""
    fields = [f for f in dataclasses.fields(TASKS[kind]) if f.name != "name"]
    needed = [f.name for f in fields if f.default is f.default_factory is dataclasses.MISSING]
    return TASKS[kind](name="thing", **{name: NEEDED[name] for name in needed})


def experiment(*tasks, **fields):
    return Experiment(name="test", tasks=tasks, data=Data(source="digits"), **fields)


@pytest.mark.parametrize("name", experiment_names())
def test_every_experiment_survives_json(name):
    found = find_experiment(name)
    assert isinstance(found, Experiment)
    assert from_json(json.loads(json.dumps(to_json(found)))) == found


@pytest.mark.parametrize("kind", TASKS)
def test_every_kind_of_task_survives_json(kind):
    found = experiment(make(kind))
    assert from_json(json.loads(json.dumps(to_json(found)))) == found


def test_every_field_survives_json(tmp_path):
    found = experiment(
        Classification(name="a", num_classes=2, class_names=("no", "yes"), label_smoothing=0.1),
        Regression(name="b", size=3, kind="huber", scale=2.0),
        trunk="cnn:widths=(8,8)",
        clip_norm=1.0,
        ema=0.5,
        dtype="bfloat16",
        select="b/mae",
    )
    (tmp_path / "config.json").write_text(json.dumps(to_json(found)))
    assert read_config(tmp_path / "config.json") == found
    assert find_experiment(str(tmp_path / "config.json")) == found


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"steps": 0}, "steps must be >= 1, not 0"),
        ({"log_every": -1}, "log_every must be >= 1, not -1"),
        ({"ema": 1.0}, r"ema must be in \[0, 1\), not 1.0"),
        ({"ema": float("nan")}, "ema must be in"),
        ({"seed": -1}, "seed must be >= 0, not -1"),
    ],
)
def test_impossible_values(fields, message):
    with pytest.raises(ValueError, match=message):
        experiment(Regression(name="a"), **fields)


def test_tasks_must_be_some_and_differ():
    with pytest.raises(ValueError, match="tasks is empty: an experiment needs at least one"):
        experiment()
    with pytest.raises(ValueError, match="two tasks are named 'a'"):
        experiment(Regression(name="a"), Regression(name="a"))
    with pytest.raises(ValueError, match="invalid task name 'a/b'"):
        experiment(Regression(name="a/b"))


OBJECTS = {
    "balancer": [
        (balancing.cagrad(c=0.4), "cagrad:c=0.4"),
        (balancing.ew(), "ew"),
        (balancing.fixed([1.0, 2.0]), "fixed:weights=(1.0,2.0)"),
        (balancing.cr_mogm(balancing.cagrad(0.4)), "cagrad:c=0.4@cr_mogm"),
    ],
    "trunk": [
        (models.mlp(widths=(8, 4)), "mlp:widths=(8,4)"),
        (models.resnet18(norm="group"), "resnet18:norm=group"),
        (models.vit_ti(), "vit_ti"),
    ],
    "fusion": [
        (models.FUSIONS["mtan"], "mtan"),
        (functools.partial(models.FUSIONS["attention"], heads=2), "attention:heads=2"),
    ],
}


@pytest.mark.parametrize(
    ("field", "value", "text"),
    [(field, value, text) for field, pairs in OBJECTS.items() for value, text in pairs],
)
def test_objects_are_recorded_as_the_text_of_the_command_line(field, value, text):
    found = experiment(Regression(name="a"), Regression(name="b"), **{field: value})
    assert getattr(found, field) == text
    assert found == experiment(Regression(name="a"), Regression(name="b"), **{field: text})
    assert to_json(found)[field] == text
    assert from_json(json.loads(json.dumps(to_json(found)))) == found
    assert dataclasses.replace(found, steps=3).steps == 3


@pytest.mark.parametrize("name", models.TRUNKS)
def test_every_trunk_is_recorded(name):
    found = experiment(Regression(name="a"), trunk=models.TRUNKS[name]())
    assert found.trunk == name
    assert getattr(models, name) is models.TRUNKS[name]


def test_what_is_built_is_the_object_that_was_given():
    trunk, fusion = models.mlp(widths=(8,), norm="none"), models.FUSIONS["cross_stitch"]
    tasks = Regression(name="a"), Regression(name="b")
    parts = build(experiment(*tasks, trunk=trunk, fusion=fusion, balancer=balancing.imtl_l(0.5)))
    assert parts.model == models.build(trunk, fusion, tasks)
    assert parts.balancer.spec == balancing.imtl_l(learning_rate=0.5).spec


def mine():
    return balancing.ew()


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"balancer": balancing.cagrad}, "balancer: cagrad cannot .*call a function of mtljax.bal"),
        (
            {"balancer": dataclasses.replace(balancing.ew(), spec=None)},
            "balancer: Balancer cannot be recorded in config.json; call a function of",
        ),
        ({"balancer": balancing.base.with_spec(mine)()}, "balancer: Balancer cannot be recorded"),
        ({"trunk": (nn.Dense(3),)}, "trunk: tuple cannot be recorded in config.json; call"),
        ({"fusion": nn.Dense}, "fusion: Dense cannot be recorded in config.json; use a class"),
        ({"optimizer": optax.sgd(0.1)}, "optimizer: .* cannot .*name an optimizer, as 'adamw:"),
        ({"balancer": balancing.cagrad(c=float("inf"))}, "cagrad: c cannot be written as text"),
    ],
)
def test_objects_that_cannot_be_recorded_are_refused_in_one_line(fields, message):
    with pytest.raises(ValueError, match=message) as raised:
        experiment(Regression(name="a"), **fields)
    assert "\n" not in str(raised.value)
