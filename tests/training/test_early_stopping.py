"""Early stopping: when a run stops, and that nothing of it changes afterwards."""

import dataclasses
import json

import numpy as np
import pytest
from support import small_run
from support.small_run import assert_same_states, lines, script_scores, states

from mtljax.config import from_json, to_json
from mtljax.runs.folder import read_result
from mtljax.runs.records import ValidationRecord
from mtljax.training.early_stopping import stopping_step
from mtljax.training.loop import train
from mtljax.training.run import Run

SEEDS = (0, 7, 3)
SCORES = {
    0: (3.0, 4.0, 3.0, 0.0, 0.0, 0.0, 0.0),  # an equal score is no better one: stops at step 12
    7: (6.0, 5.0, 4.0, 5.0, 3.0, 2.0, 1.0),
    3: (2.0, 3.0, 1.0, 2.0, 2.0, 0.0, 0.0),  # stops at step 20
}


def records(*scores):
    return [
        ValidationRecord(step=10 * (i + 1), validation={}, score=s) for i, s in enumerate(scores)
    ]


@pytest.mark.parametrize(
    ("scores", "patience", "after", "expected"),
    [
        ((3, 2, 1), 1, 0, None),
        ((3, 2, 2), 1, 0, 30),
        ((3, 4, 4, 1, 2, 3, 4), 3, 0, 70),
        ((3, 4, 4, 1, 2, 3, 4), None, 0, None),
        ((1, 2, 2, 2, 2), 2, 30, 50),  # those of a run before its continuation do not count
        ((1, 2, 2, 2), 2, 30, None),
        ((1.7e308, 1.7e308, 1.7e308), 2, 0, 30),  # never a number
    ],
)
def test_training_stops_after_evaluations_without_a_better_score(scores, patience, after, expected):
    assert stopping_step(records(*scores), patience, after=after) == expected


@pytest.fixture(scope="module")
def programs():
    return small_run.make_programs(patience=2)


@pytest.fixture(scope="module")
def together(programs, tmp_path_factory):
    """Folders of three runs that trained side by side, of which two stopped early."""
    root = tmp_path_factory.mktemp("together")
    folders = [root / str(seed) for seed in SEEDS]
    with pytest.MonkeyPatch.context() as patch:
        script_scores(patch, SCORES)
        small_run.run(programs, folders, seeds=SEEDS)
    return folders


def test_each_of_several_runs_stops_at_its_own_step(together):
    results = [read_result(folder) for folder in together]
    assert [result.stopped_step for result in results] == [12, None, 20]
    assert [result.steps for result in results] == [28, 28, 28]
    assert [result.best_step for result in results] == [12, 28, 12]  # the later one of equals
    assert [max(line["step"] for line in lines(folder)) for folder in together] == [12, 28, 20]
    assert [max(states(folder)) for folder in together] == [12, 28, 20]
    assert "stopped_step" not in json.loads((together[1] / "result.json").read_text())


def test_a_stopped_run_is_the_run_that_trained_alone(programs, together, tmp_path, monkeypatch):
    script_scores(monkeypatch, SCORES)
    small_run.run(programs, [tmp_path], seeds=(3,))
    alone, beside = states(tmp_path), states(together[2])
    assert alone.keys() == beside.keys() == {12, 20}
    for step, arrays in alone.items():
        for name, leaf in arrays.items():
            np.testing.assert_allclose(leaf, beside[step][name], rtol=1e-4, atol=1e-6, err_msg=name)
    ours, theirs = read_result(tmp_path), read_result(together[2])
    assert ours.test["b"]["mae"] == pytest.approx(theirs.test["b"]["mae"], rel=1e-4)


@pytest.mark.parametrize("die_at", [8, 12, 18, 24])
def test_an_interrupted_group_ends_as_an_undisturbed_one(
    die_at, programs, together, tmp_path, monkeypatch
):
    folders = [tmp_path / str(seed) for seed in SEEDS]
    script_scores(monkeypatch, SCORES)
    with pytest.raises(KeyboardInterrupt):
        small_run.run(programs, folders, seeds=SEEDS, die_at=die_at)
    script_scores(monkeypatch, SCORES, die_at // 4)
    # A run that has stopped is not scored, so that its script does not move.
    small_run.run(programs, folders, seeds=SEEDS)
    for ours, theirs in zip(folders, together, strict=True):
        assert lines(ours) == lines(theirs)
        assert_same_states(states(ours), states(theirs))
        assert read_result(ours).stopped_step == read_result(theirs).stopped_step


def test_a_run_that_died_after_it_had_stopped_takes_no_further_step(
    programs, tmp_path, monkeypatch
):
    with monkeypatch.context() as patch:
        script_scores(patch, SCORES)
        patch.setattr(Run, "finish", lambda *_, **__: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            small_run.run(programs, [tmp_path])
    before = lines(tmp_path)
    monkeypatch.setattr(programs, "executor", lambda *_: 1 / 0)
    (result,) = small_run.run(programs, [tmp_path])
    assert result.stopped_step == 12
    assert lines(tmp_path) == before


def test_training_says_why_it_stopped(tmp_path, monkeypatch, capsys):
    script_scores(monkeypatch, SCORES)
    monkeypatch.setattr(Run, "_write_report", lambda *_: None)
    experiment = dataclasses.replace(small_run.EXPERIMENT, patience=2, select="a/accuracy")
    train(experiment, tmp_path, source=small_run.source(), devices=1)
    text = " ".join(capsys.readouterr().out.split())
    assert (
        "stopped early at step 12 of 28: 2 evaluations without a better a/accuracy (--patience)"
        in text
    )


def test_patience_is_recorded_and_must_be_positive():
    experiment = dataclasses.replace(small_run.EXPERIMENT, patience=3)
    assert from_json(to_json(experiment)).patience == 3
    with pytest.raises(ValueError, match="patience must be >= 1 evaluation or none, not 0"):
        dataclasses.replace(experiment, patience=0)
