"""Training by a call, as in a notebook, on arrays in memory."""

import collections
import dataclasses
import json
import time

import jax
import numpy as np
import pytest

from mtljax.config import Data, Experiment
from mtljax.data import from_arrays
from mtljax.evaluation.evaluator import Evaluator
from mtljax.runs.load import load_run
from mtljax.step import train_step
from mtljax.tasks import Classification
from mtljax.training.loop import train

EXPERIMENT = Experiment(
    name="given",
    tasks=(Classification(name="bright", num_classes=2),),
    data=Data(source="somewhere else", labels={"bright": "light"}, batch_size=8),
    trunk="mlp:widths=(4,)",
    steps=3,
    log_every=3,
    eval_every=3,
)


def source(classes=2):
    image = np.random.default_rng(0).integers(0, 255, (40, 4, 4, 1)).astype(np.uint8)
    light = (image.mean((1, 2, 3)) > 127).astype(np.int32) + classes - 2
    return from_arrays(image, {"light": light, "other": light})


def test_what_is_given_is_trained_on_and_not_looked_for(tmp_path):
    result = train(EXPERIMENT, tmp_path / "run", source=source(), quiet=True)
    assert np.sum(result.test["bright"]["confusion"]) == 8  # a fifth of 40
    assert load_run(tmp_path / "run").dtype == "uint8"
    (tmp_path / "run" / "report.html").unlink()
    again = train(EXPERIMENT, tmp_path / "run", source=source(), quiet=True)
    assert json.dumps(again.to_json()) == json.dumps(result.to_json())
    assert (tmp_path / "run" / "report.html").exists()


def test_each_program_is_compiled_once_though_threads_compile_some_of_them(tmp_path):
    compiled = []

    def listen(event, seconds, fun_name="", **kwargs):
        if event.endswith("backend_compile_duration"):
            compiled.append(fun_name)

    tasks = (*EXPERIMENT.tasks, Classification(name="other", num_classes=2))
    data = dataclasses.replace(EXPERIMENT.data, labels={"bright": "light", "other": "other"})
    experiment = dataclasses.replace(EXPERIMENT, tasks=tasks, data=data, eval_every=1)
    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        train(experiment, tmp_path / "run", source=source(), quiet=True)
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)
    counts = collections.Counter(compiled)
    # `run`: evaluation with the model, and with constant outputs.
    assert (counts["jit(measure)"], counts["jit(many)"], counts["jit(run)"]) == (1, 1, 2)


@pytest.mark.parametrize("keep", ["yes", "no"])
def test_the_train_step_is_traced_once(tmp_path, monkeypatch, keep):
    steps, call = [], train_step._TrainStep.__call__
    monkeypatch.setattr(
        train_step._TrainStep, "__call__", lambda *args: steps.append(args) or call(*args)
    )
    data = dataclasses.replace(EXPERIMENT.data, keep_on_device=keep)
    train(dataclasses.replace(EXPERIMENT, data=data), tmp_path / "run", source=source(), quiet=True)
    assert len(steps) == 1


def test_labels_that_do_not_fit_are_refused_before_anything_is_written(tmp_path):
    with pytest.raises(ValueError, match=r"train split: task 'bright': label .* 0\.\.1"):
        train(EXPERIMENT, tmp_path / "run", source=source(classes=3), quiet=True)
    missing = from_arrays(np.zeros((40, 4, 4, 1), np.uint8), {"other": np.zeros(40)})
    with pytest.raises(ValueError, match="has no labels 'light' for task 'bright'"):
        train(EXPERIMENT, tmp_path / "run", source=missing, quiet=True)
    assert not (tmp_path / "run").exists()


def test_the_throughput_leaves_evaluations_out(tmp_path, monkeypatch):
    metrics_per_run = Evaluator.metrics_per_run

    def slow(self, state):
        time.sleep(5)
        return metrics_per_run(self, state)

    monkeypatch.setattr(Evaluator, "metrics_per_run", slow)
    experiment = dataclasses.replace(EXPERIMENT, steps=8, log_every=2, eval_every=4)
    train(experiment, tmp_path / "run", source=source(), quiet=True)
    lines = [json.loads(x) for x in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    speeds = [line["examples_per_second"] for line in lines if "loss" in line]
    examples = 2 * experiment.data.batch_size
    assert len(speeds) == 4
    assert all(examples / speed < 5 for speed in speeds[1:])  # the first compiles


def test_source_and_load_exclude_each_other(tmp_path):
    with pytest.raises(ValueError, match="either source or load"):
        train(EXPERIMENT, tmp_path / "run", source=source(), load=lambda experiment: source())
