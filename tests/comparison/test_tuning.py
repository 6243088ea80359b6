"""`compare --tune`: the same number of trials for every method; formulas replace the training."""

import contextlib
import json
import math

import pytest
from support.comparison import EXPERIMENT, write_result

pytest.importorskip("optuna")

from mtljax.comparison import compare as module  # noqa: E402
from mtljax.comparison.compare import compare  # noqa: E402
from mtljax.comparison.engines.tasks import members_of_message, tasks_of  # noqa: E402
from mtljax.comparison.member_training import train_members  # noqa: E402
from mtljax.comparison.members import Failure  # noqa: E402
from mtljax.comparison.plan import plan  # noqa: E402
from mtljax.comparison.tuning import Tuning, plan_tuning  # noqa: E402
from mtljax.main import main  # noqa: E402
from mtljax.training.stopping import Stopped  # noqa: E402
from mtljax.tuning.trials import Trainer  # noqa: E402

OPTIMUM = {"digit": 3e-4, "value": 5e-3, "ew": 1e-3, "uw": 3e-3}
SPACE = ("learning_rate=loguniform(1e-4,1e-2)",)


def method_of(experiment):
    """Key of `OPTIMUM`: the task of a single-task network, or the balancer."""
    tasks = [task.name for task in experiment.tasks]
    return tasks[0] if len(tasks) == 1 else experiment.balancer


@pytest.fixture
def trained(monkeypatch):
    """Methods of the trials, in their order; the best learning rate of each is in `OPTIMUM`."""
    found = []

    def train(self, study, trial, workdir, experiment, overrides):
        found.append(method_of(experiment))
        rate = float(dict(overrides)["learning_rate"])
        if method_of(experiment) == "pcgrad":
            return Stopped("the loss of task 'value' is nan")
        return abs(math.log(rate / OPTIMUM[method_of(experiment)]))

    monkeypatch.setattr(Trainer, "_train", train)
    return found


@pytest.fixture
def planted(trained, monkeypatch):
    """The same, with written results in place of the final runs."""

    def run_members(methods, seeds, workdir, **_):
        for method in methods:
            (candidate,) = method.candidates
            for seed in seeds:
                folder = candidate.folder(workdir, seed)
                if not folder.exists():
                    write_result(folder, 0.9 + 0.01 * seed, 2.0, 3.0, seed=seed)
        return []

    monkeypatch.setattr(module, "run_members", run_members)
    return trained


@pytest.mark.full
def test_every_method_and_baseline_is_tuned_by_itself_with_the_same_budget(planted, tmp_path):
    options = {"balancers": ("ew", "uw"), "tune": 10, "space": SPACE, "seeds": 2, "quiet": True}
    comparison, failures = compare(EXPERIMENT, tmp_path, **options)
    assert failures == []
    assert {name: planted.count(name) for name in OPTIMUM} == dict.fromkeys(OPTIMUM, 10)
    rates = [row.settings for row in comparison.rows]
    assert rates[0].startswith("digit: learning_rate=")
    assert "; value: learning_rate=" in rates[0]
    chosen = [float(text.rpartition("=")[2]) for text in rates[1:]]
    for rate, optimum in zip(chosen, (1e-3, 3e-3), strict=True):
        assert abs(math.log(rate / optimum)) < 0.7  # 10 trials on two decades
    page = (tmp_path / "report.html").read_text()
    for text in (*rates[1:], "was tuned by 10 trials on validation", "seed 1000 of the trials"):
        assert text in page
    assert rates[1] in (tmp_path / "results.md").read_text()
    planted.clear()
    again, _ = compare(EXPERIMENT, tmp_path, **options)
    assert planted == []  # resumed: no trial is trained again
    assert [row.settings for row in again.rows] == rates


def test_default_space_is_around_the_learning_rate_of_the_experiment():
    assert plan_tuning(EXPERIMENT, 5, ()).space == ("learning_rate=loguniform(0.0001,0.01)",)


def test_merged_runs_are_those_of_tuned_networks(trained, tmp_path):
    methods = plan(EXPERIMENT, balancers=["ew"], merges=["average"])
    tuning = Tuning(3, SPACE, seed=1000)
    tuned, failures = tuning.run(methods, tmp_path, devices=1, quiet=True)
    assert failures == []
    singles = [method.candidates[0] for method in tuned if method.kind == "stl"]
    (merged,) = (m.candidates[0] for m in tuned if m.candidates[0].merge)
    assert merged.parts == tuple(singles)
    assert all(single.settings for single in singles)


def test_method_of_which_all_trials_fail_keeps_its_setting_and_is_reported(trained, tmp_path):
    methods = plan(EXPERIMENT, balancers=["ew", "pcgrad"])
    tuned, failures = Tuning(3, SPACE, seed=1000).run(methods, tmp_path, devices=1, quiet=True)
    (failure,) = failures
    assert failure.member == "pcgrad, tuning"
    assert "3 of 3 trials failed; the first: the loss of task 'value' is nan" in failure.reason
    assert [m.candidates[0].settings != "" for m in tuned] == [True, True, True, False]


class Workers:
    """Engine whose workers are this process; the first trials of `lost` get lost."""

    def __init__(self, lost=""):
        self.lost, self.tasks = lost, []

    @contextlib.contextmanager
    def open(self, work):
        yield lambda: [failure for task in tasks_of(work) for failure in self.train(task, work)]

    def train(self, task, work):
        (member,) = task.members
        self.tasks.append(member.name)
        if member.method.name == self.lost:
            return [Failure(member.name, "its worker was lost")]
        message = json.loads(json.dumps(task.message(work)))
        before = task.saved
        failures = train_members(
            members_of_message(message), sources={}, progress=work.progress, devices=1
        )
        assert task.saved >= before
        return failures


def test_trials_of_workers_are_those_of_this_process(trained, tmp_path):
    methods = plan(EXPERIMENT, balancers=["ew", "pcgrad"], merges=["average"])
    tuning, options = Tuning(3, SPACE, seed=1000), {"devices": 1, "quiet": True}
    expected = tuning.run(methods, tmp_path / "here", **options)
    for folder in (tmp_path / "workers", tmp_path / "here"):  # the second has nothing left to do
        engine = Workers()
        found = tuning.run(methods, folder, engine=engine, **options)
        assert found == expected
        assert len(engine.tasks) == (4 if folder.name == "workers" else 0)


def test_comparison_stops_if_the_trials_of_a_method_got_lost(trained, tmp_path):
    methods = plan(EXPERIMENT, balancers=["ew"])
    tuning, options = Tuning(3, SPACE, seed=1000), {"devices": 1, "quiet": True}
    with pytest.raises(Stopped, match="ew, tuning: its worker was lost; run the same command to r"):
        tuning.run(methods, tmp_path, engine=Workers(lost="ew"), **options)
    assert "ew" not in trained
    engine = Workers()
    tuning.run(methods, tmp_path, engine=engine, **options)
    assert engine.tasks == ["ew, tuning"]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--space", *SPACE), "--space needs --tune N"),
        (("--tune", "-1"), "--tune must be >= 1 trial, not -1"),
        (("--tune", "3", "--grid", "learning_rate=1e-3,1e-2"), "cannot be combined with --grid"),
        (("--tune", "3", "--folds", "3"), "cannot be combined with --folds"),
        (("--tune", "3", "--space", "balancer=choice(ew,uw)"), "cannot have balancer"),
        (("--tune", "3", "--vary", "learning_rate=1,2"), "cannot have learning_rate"),
        (("--tune", "3", "--space", "learning_rate=uniform(2,1)"), "low must be below high"),
    ],
)
def test_bad_input_is_one_line_and_nothing_is_written(flags, message, tmp_path, capsys):
    folder = tmp_path / "compared"
    assert main(["compare", "--experiment", "digits", "--workdir", str(folder), *flags]) == 2
    captured = capsys.readouterr()
    assert message in captured.err
    assert captured.err.count("\n") == 1
    assert not folder.exists()
