"""Continuation of a finished run with more steps."""

import dataclasses
import json
import re
import shutil

import numpy as np
import pytest
from support import small_run
from support.cli import TRAINED
from support.small_run import EXPERIMENT, assert_same_states, lines, states

from mtljax.main import main
from mtljax.runs.folder import read_result
from mtljax.training.loop import train
from mtljax.training.run import Run

FULL = dataclasses.replace(
    EXPERIMENT, ema=0.9, balancer="dwa", optimizer="momentum", steps=20, eval_every=4
)


@pytest.fixture(autouse=True)
def no_report(monkeypatch):
    monkeypatch.setattr(Run, "_write_report", lambda *_: None)


def train_in(folder, **changes):
    experiment = dataclasses.replace(FULL, **changes)
    return train(experiment, folder, source=small_run.source(), devices=1, quiet=True)


def config(folder):
    return json.loads((folder / "config.json").read_text())


def test_with_a_constant_rate_it_is_the_run_that_never_ended(tmp_path):
    short, long = tmp_path / "short", tmp_path / "long"
    first = train_in(short, steps=12)
    (short / "calibration.json").write_text("{}")  # of the checkpoint that was the best
    continued, undisturbed = train_in(short), train_in(long)
    assert lines(short) == lines(long)
    assert_same_states(states(short), states(long))  # optimizer, balancer, average, key
    assert continued.test == undisturbed.test
    assert (continued.test_looks, undisturbed.test_looks, first.test_looks) == (2, 1, 1)
    assert json.loads((short / "result-12.json").read_text()) == first.to_json()
    assert config(short) == config(long)
    assert json.loads((short / "result.json").read_text())["steps"] == 20
    assert continued.seconds > first.seconds
    assert not (long / "result-20.json").exists()
    assert (short / "calibration-12.json").exists()
    assert not (short / "calibration.json").exists()


def last_state(folder):
    found = states(folder)
    return found[max(found)]


def test_the_schedule_is_evaluated_for_the_new_number_of_steps_or_given_anew(tmp_path):
    start = {"optimizer": "sgd", "ema": None, "balancer": "ew", "schedule": "step:every=10"}
    rates = {"step:every=10,factor=1e-6": 1e-6, "constant": 1.0}
    moved = {}
    for schedule in rates:
        folder = tmp_path / schedule.partition(":")[0]
        train_in(folder, **start, steps=12)
        before = last_state(folder)
        train_in(folder, **start | {"schedule": schedule}, steps=16)
        after = last_state(folder)
        moved[schedule] = max(
            float(np.abs(leaf - before[name]).max())
            for name, leaf in after.items()
            if name.startswith("params:")
        )
        assert config(folder)["schedule"] == schedule
    slow, fast = moved.values()
    assert 0 <= slow < 1e-5 < fast
    cosine = tmp_path / "cosine"
    train_in(cosine, **start | {"schedule": "cosine"}, steps=12)
    before = last_state(cosine)
    train_in(cosine, **start | {"schedule": "cosine"}, steps=40)
    assert (
        float(
            np.abs(
                last_state(cosine)["params:task_a:Dense_0:kernel"]
                - before["params:task_a:Dense_0:kernel"]
            ).max()
        )
        > 1e-3
    )


@pytest.mark.parametrize("schedules", [("cosine", "plateau"), ("plateau", "linear")])
def test_a_plateau_schedule_can_begin_or_end_with_a_continuation(schedules, tmp_path):
    train_in(tmp_path, schedule=schedules[0], steps=8)
    before = last_state(tmp_path)
    train_in(tmp_path, schedule=schedules[1], steps=12)
    after = last_state(tmp_path)
    assert ("opt_state:1:scale" in before) == (schedules[0] == "plateau")
    assert ("opt_state:1:scale" in after) == (schedules[1] == "plateau")
    assert any("trace" in name and leaf.any() for name, leaf in after.items())  # the momentum


def test_a_run_that_was_stopped_early_goes_on_with_a_new_count(tmp_path, monkeypatch):
    small_run.script_scores(monkeypatch, {0: (1.0, 2.0, 3.0)})
    assert train_in(tmp_path, patience=2).stopped_step == 12
    small_run.script_scores(monkeypatch, {0: (4.0, 5.0, 6.0)})
    result = train_in(tmp_path, patience=2, steps=40)
    assert (result.stopped_step, result.best_step, result.test_looks) == (20, 4, 2)


def test_the_same_steps_again_train_nothing(tmp_path, capsys):
    train_in(tmp_path)
    before = (tmp_path / "result.json").read_bytes()
    train(FULL, tmp_path, source=small_run.source(), devices=1)
    assert "is finished already; continue it with --steps above 20" in capsys.readouterr().out
    assert (tmp_path / "result.json").read_bytes() == before
    assert not list(tmp_path.glob("result-*.json"))


@pytest.mark.parametrize("stop", ["after the configuration", "after the result", "in training"])
def test_a_continuation_that_is_killed_goes_on(stop, tmp_path, monkeypatch):
    folder, undisturbed = tmp_path / "run", tmp_path / "undisturbed"
    train_in(folder, steps=12)
    if stop == "in training":
        with monkeypatch.context() as patch:
            patch.setattr(Run, "finish", lambda *_, **__: 1 / 0)
            with pytest.raises(ZeroDivisionError):
                train_in(folder)
    else:
        (folder / "config.json").write_text(json.dumps(config(folder) | {"steps": 20}))
        if stop == "after the result":
            (folder / "result.json").rename(folder / "result-12.json")
    result = train_in(folder)
    train_in(undisturbed)
    assert_same_states(states(folder), states(undisturbed))
    assert result.test_looks == 2
    assert read_result(folder).steps == 20


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"steps": 5}, "steps=7, not 5; .*; a finished run is continued by --steps above 7"),
        ({"steps": 9, "learning-rate": 0.5}, r"holds a run with learning_rate=0\.006, not 0\.5"),
        ({"steps": 9, "data.batch-size": 8}, r"holds a run with data\.batch_size=\d+, not 8"),
        ({"schedule": "cosine"}, "schedule=constant, not cosine; .*--steps above 7"),
    ],
)
def test_other_changes_are_refused_in_one_line(changes, message, trained_run, capsys):
    files = {file: file.read_bytes() for file in trained_run.glob("*.json*")}
    flags = [word for name, value in changes.items() for word in (f"--{name}", str(value))]
    assert main([*TRAINED, *flags, "--workdir", str(trained_run), "--quiet"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert re.search(message, line), line
    assert {file: file.read_bytes() for file in trained_run.glob("*.json*")} == files


def test_a_run_that_kept_only_its_best_checkpoint_cannot_be_continued(
    tmp_path, capsys, monkeypatch
):
    small_run.script_scores(monkeypatch, {0: (1.0, 2.0, 3.0)})
    train_in(tmp_path, steps=12)
    shutil.rmtree(tmp_path / "checkpoints" / "12")
    with pytest.raises(ValueError, match=r"no checkpoint of its last step 12 \(only: 4\).*--init"):
        train_in(tmp_path)
    assert (tmp_path / "result.json").exists()


def test_the_second_look_at_the_test_split_is_printed(trained_run, tmp_path, capsys):
    shutil.copytree(trained_run, tmp_path / "run")
    assert main([*TRAINED, "--steps", "9", "--workdir", str(tmp_path / "run")]) == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "continuing the finished run of 7 steps, with schedule constant evaluated for 9" in text
    assert "this is result 2 of this run on the test split" in text
    assert (tmp_path / "run" / "result-7.json").read_text() == (
        trained_run / "result.json"
    ).read_text()
