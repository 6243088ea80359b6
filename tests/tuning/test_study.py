"""Studies that are interrupted, shared and resumed; the training is replaced by a formula."""

import dataclasses
import os
import signal
import threading

import pytest
from support.small_search import BASE, SPACE, open_study

pytest.importorskip("optuna")

from mtljax.training.stopping import Stopped  # noqa: E402
from mtljax.tuning.study import ATTEMPTS  # noqa: E402
from mtljax.tuning.trials import Trainer, best_trials  # noqa: E402


class Formula(Trainer):
    """Trainer with a score that is lowest at learning_rate=0.01."""

    def _train(self, study, trial, workdir, experiment, overrides):
        rate = float(dict(overrides)["learning_rate"])
        if rate > 0.09:
            return Stopped("the loss of task 'value' is nan")
        return abs(rate - 0.01)


def train(study, total=6):
    return Formula(quiet=True).run(study, BASE, total)


def test_first_trial_has_the_setting_of_the_experiment(tmp_path):
    (first,) = train(open_study(tmp_path), 1)
    assert first.settings == "learning_rate=0.05"
    assert first.score == pytest.approx(0.04)


@pytest.mark.parametrize("storage", ["database", "journal"])
def test_trials_do_not_depend_on_interruptions(tmp_path, storage):
    path = str(tmp_path / "journal.log") if storage == "journal" else None
    undisturbed = train(open_study(tmp_path / "a", storage=path), 12)
    train(open_study(tmp_path / "b", storage=path), 3)
    with open_study(tmp_path / "b", storage=path).next_trial(12) as trial:
        assert trial.number == 3  # its process is killed: no score is told
    resumed = train(open_study(tmp_path / "b", storage=path), 12)
    assert resumed == undisturbed
    assert len(undisturbed) == 12
    assert best_trials(undisturbed, 1)[0].score < 0.04


def test_processes_train_different_trials_and_continue_those_of_killed_ones(tmp_path):
    first, second = open_study(tmp_path), open_study(tmp_path)
    with first.next_trial(2) as a:
        with second.next_trial(2) as b:
            assert (a.number, b.number) == (0, 1)
            assert a.params != b.params
            with open_study(tmp_path).next_trial(2) as none:
                assert none is None
            assert first.is_running()
        with first.next_trial(2) as again:  # the second process is gone, the first is not
            assert again.number == 1
            assert again.params == b.params
            first.complete(again, 1.0)
    assert [record.state for record in first.records()] == ["running", "complete"]


def test_two_processes_end_with_the_same_trials(tmp_path):
    found = {}
    study = lambda name: open_study(tmp_path)
    threads = [
        threading.Thread(target=lambda name=name: found.update({name: train(study(name), 10)}))
        for name in "ab"
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert found["a"] == found["b"]
    assert [record.number for record in found["a"]] == list(range(10))


def test_signal_between_trials_stops_the_search_and_loses_none(tmp_path):
    undisturbed = train(open_study(tmp_path / "a"), 4)

    class Signaled(Formula):
        def _train(self, study, trial, *others):
            if trial.number == 2:
                os.kill(os.getpid(), signal.SIGTERM)
            return super()._train(study, trial, *others)

    with pytest.raises(Stopped) as stopped:
        Signaled(quiet=True).run(open_study(tmp_path / "b"), BASE, 4)
    assert stopped.value.status == 128 + signal.SIGTERM
    assert open_study(tmp_path / "b").records() == undisturbed[:3]
    assert train(open_study(tmp_path / "b"), 4) == undisturbed


def test_failed_trials_have_their_reason_and_are_never_the_best(tmp_path):
    records = train(open_study(tmp_path, space=("learning_rate=uniform(0.04,0.3)",)), 8)
    failed = [record for record in records if record.state == "failed"]
    assert failed
    assert {record.reason for record in failed} == {"the loss of task 'value' is nan"}
    assert all(record.state == "complete" for record in best_trials(records))


def test_study_of_failures_only_is_an_error(tmp_path):
    with pytest.raises(Stopped, match="3 of 3 trials failed; the first: the loss of task 'value'"):
        train(open_study(tmp_path, space=("learning_rate=uniform(0.1,0.3)",)), 3)


def test_setting_that_was_trained_is_not_trained_again(tmp_path):
    calls = []

    class Counting(Trainer):
        def _train(self, study, trial, workdir, experiment, overrides):
            calls.append(overrides)
            return len(calls) / 10

    study = open_study(tmp_path, space=("balancer=choice(ew,uw)",))
    records = Counting(quiet=True).run(study, BASE, 8)
    assert len(calls) == 2
    assert {record.score for record in records} == {0.1, 0.2}
    assert records[-1].reason.startswith("same setting as trial ")
    assert [record.settings for record in best_trials(records)] == ["balancer=ew", "balancer=uw"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"space": ("learning_rate=uniform(0.001,0.1)",)}, "holds a search with space="),
        ({"experiment": None}, "holds a search with steps=8, not 9"),
    ],
)
def test_folder_of_another_search_is_refused(tmp_path, changes, message):
    open_study(tmp_path)
    if "experiment" in changes:
        changes = {"experiment": dataclasses.replace(BASE, steps=9)}
    with pytest.raises(ValueError, match=message):
        open_study(tmp_path, **changes)


def test_storage_holds_the_studies_of_several_folders(tmp_path):
    storage = f"sqlite:///{tmp_path / 'shared.db'}"
    a, b = (open_study(tmp_path / name, storage=storage) for name in "ab")
    assert len(train(a, 3)) == 3
    assert b.records() == []
    assert len(open_study(tmp_path / "a", space=SPACE, storage=storage).records()) == 3


def test_storage_that_cannot_be_opened_is_one_line(tmp_path):
    with pytest.raises(ValueError, match="the storage nonsense://x of the study cannot be used"):
        open_study(tmp_path, storage="nonsense://x")


def test_trial_that_kills_its_processes_fails_instead_of_stopping_the_search(tmp_path):
    for _ in range(1 + ATTEMPTS):
        with open_study(tmp_path).next_trial(2) as trial:
            number = trial.number
    first = open_study(tmp_path).records()[0]
    assert (number, first.state) == (1, "failed")
    assert first.reason == f"its process was killed {ATTEMPTS} times in a row"


def test_importances_are_unknown_where_scores_are_equal_or_few(tmp_path):
    class Constant(Trainer):
        def _train(self, study, trial, workdir, experiment, overrides):
            return 1.0

    study = open_study(tmp_path)
    for total in (1, 6):
        Constant(quiet=True).run(study, BASE, total)
        assert study.importances() == {}
