"""The plateau schedule in training: its state is saved and resumed with the optimizer's."""

import dataclasses

import numpy as np
import pytest
from support import small_run
from support.small_run import assert_same_states, lines, script_scores, states

from mtljax.training.loop import train
from mtljax.training.run import Run

SCORES = {
    0: (3.0, 4.0, 5.0, 6.0, 2.0, 3.0, 4.0),
    7: (7.0, 6.0, 5.0, 4.0, 3.0, 2.0, 1.0),
}
SCHEDULE = "plateau:patience=2,factor=0.5"


@pytest.fixture(scope="module")
def programs():
    return small_run.make_programs(schedule=SCHEDULE)


@pytest.mark.parametrize("seeds", [(0,), (0, 7)])
@pytest.mark.parametrize("die_at", [12, 18])
def test_an_interrupted_run_ends_as_an_undisturbed_one(
    die_at, seeds, programs, tmp_path, monkeypatch
):
    ours, theirs = ([tmp_path / f"{kind}-{seed}" for seed in seeds] for kind in "ab")
    script_scores(monkeypatch, SCORES)
    small_run.run(programs, theirs, seeds=seeds)
    script_scores(monkeypatch, SCORES)
    with pytest.raises(KeyboardInterrupt):
        small_run.run(programs, ours, seeds=seeds, die_at=die_at)
    script_scores(monkeypatch, SCORES, die_at // 4)
    small_run.run(programs, ours, seeds=seeds)
    scales = []
    for one, other in zip(ours, theirs, strict=True):
        assert lines(one) == lines(other)
        found = states(one)
        assert_same_states(found, states(other))
        scales.append(float(found[28]["opt_state:1:scale"]))
    assert scales == [0.25, 1.0][: len(seeds)]  # after steps 12 and 28


def test_nothing_moves_after_a_reduction_to_almost_zero(tmp_path, monkeypatch):
    monkeypatch.setattr(Run, "_write_report", lambda *_: None)
    changes = {"schedule": "plateau:patience=1,factor=1e-9", "optimizer": "sgd", "steps": 8}
    moved = []
    for scores in ((2.0, 2.0), (2.0, 1.0)):  # the rate is reduced after step 8, or is not
        script_scores(monkeypatch, {0: scores})
        folder = tmp_path / str(len(moved))
        small_run.run(small_run.make_programs(**changes), [folder])
        before = states(folder)[8]
        script_scores(monkeypatch, {0: (3.0,)})
        train_on = dataclasses.replace(small_run.EXPERIMENT, **changes | {"steps": 12})
        train(train_on, folder, source=small_run.source(), devices=1, quiet=True)
        after = states(folder)[12]
        params = [name for name in after if name.startswith("params")]
        moved.append(max(np.abs(after[name] - before[name]).max() for name in params))
    assert moved[0] < 1e-7 < 1e-4 < moved[1]


def test_a_reduction_is_printed(tmp_path, monkeypatch, capsys):
    script_scores(monkeypatch, SCORES)
    monkeypatch.setattr(Run, "_write_report", lambda *_: None)
    experiment = dataclasses.replace(small_run.EXPERIMENT, schedule=SCHEDULE)
    train(experiment, tmp_path, source=small_run.source(), devices=1)
    out = capsys.readouterr().out
    assert "step 12: learning rate reduced to 0.5 times its schedule" in out
    assert out.count("learning rate reduced") == 2
