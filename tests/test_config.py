"""Experiments as data: written, read back, and checked."""

import dataclasses
import json

import pytest

from mtljax.config import (
    Data,
    Experiment,
    experiment_names,
    find_experiment,
    from_json,
    read_config,
    to_json,
)
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
