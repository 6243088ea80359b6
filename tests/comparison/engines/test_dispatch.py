"""Tasks of a cluster: which there are, their order, and what happens if their workers are lost."""

import dataclasses
import json
import os
import pickle
import signal

import fsspec
import pytest
from support.comparison import SMALL, write_result

from mtljax.comparison.cross_validation import cross_validation
from mtljax.comparison.engines.base import Work
from mtljax.comparison.engines.dispatch import Lost, dispatch
from mtljax.comparison.engines.tasks import (
    members_of_message,
    require_portable,
    tasks_of,
    validation_of_message,
)
from mtljax.comparison.engines.worker import Report
from mtljax.comparison.members import groups_of, members_of
from mtljax.comparison.plan import plan
from mtljax.comparison.progress import ComparisonProgress
from mtljax.runs.staging import staged
from mtljax.training.stopping import Stopped


def make_work(workdir, *, seeds=(0, 1), together="auto", validation=None, methods=None, **asked):
    asked = asked or {"balancers": ["ew", "uw"]}
    methods = methods or plan(SMALL, **asked)
    folds = validation.folds if validation else [None]
    members = members_of(methods, seeds, workdir, folds)
    progress = ComparisonProgress(len(members), members, quiet=True)
    return Work(groups_of(members), workdir, validation, None, together, progress, True)


def members(work):
    return [member for group in work.groups for member in group]


class FakeCluster:
    """Writes results instead of training; `events` are what happens to each start of a task."""

    def __init__(self, events=None, slots=None, retries=3):
        self.slots, self.retries = slots, retries
        self.events = {folder: list(given) for folder, given in (events or {}).items()}
        self.started, self.canceled, self.most = [], [], 0
        self.running = {}

    def submit(self, message):
        message = pickle.loads(pickle.dumps(message))
        for member in message["members"]:
            for part in member["parts"]:
                assert os.path.exists(os.path.join(part, "result.json"))
        job = len(self.started)
        self.started.append([member["folder"] for member in message["members"]])
        self.running[job] = message
        self.most = max(self.most, len(self.running))
        return job

    def wait(self, jobs, seconds):
        return jobs[-1:]  # the latest first: another order than that of the tasks

    def report(self, job):
        message, reasons = self.running.pop(job), []
        for member in message["members"]:
            events = self.events.get(member["folder"], [])
            event = events.pop(0) if events else None
            if callable(event):
                event = event()
            if isinstance(event, Exception):
                raise event
            if event == "stopped":
                return Report("host", (None,) * len(message["members"]), stopped=True)
            if event is None:
                folder = members_of_message(message)[0].folder.parents[0]
                assert folder.parent.name == "members"
                write_result(type(folder)(member["folder"]), 0.5, 1.0, 1.0, seed=member["seed"])
            reasons.append(event)
        return Report("host", tuple(reasons), stopped=False)

    def cancel(self, job):
        self.canceled.append(job)
        self.running.pop(job)


def test_each_run_is_a_task_and_all_finish(tmp_path):
    work, cluster = make_work(tmp_path), FakeCluster()
    assert dispatch(cluster, work) == []
    assert sorted(cluster.started) == sorted([str(m.folder)] for m in members(work))
    assert all((m.folder / "result.json").exists() for m in members(work))


def test_results_that_workers_upload_are_downloaded(tmp_path, monkeypatch):
    monkeypatch.setattr(fsspec.get_filesystem_class("memory"), "store", {})
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "here"))

    class Elsewhere(FakeCluster):
        """Trains on another machine."""

        def report(self, job):
            (member,) = self.running.pop(job)["members"]
            below = os.path.relpath(member["folder"], workdir)
            with monkeypatch.context() as patch:
                patch.setenv("XDG_CACHE_HOME", str(tmp_path / "elsewhere"))
                with staged(f"{url}/{below}") as folder:
                    write_result(folder, 0.5, 1.0, 1.0, seed=member["seed"])
            return Report("elsewhere", (None,), stopped=False)

        def submit(self, message):
            assert message["url"] == url
            return super().submit(message)

    url = "memory://bucket/compared"
    with staged(url) as workdir:
        work = make_work(workdir)
        assert dispatch(Elsewhere(), work) == []
        assert all((m.folder / "result.json").exists() for m in members(work))


def test_a_merge_starts_after_its_single_task_runs_and_slots_are_kept(tmp_path):
    work, cluster = make_work(tmp_path, merges=["average"]), FakeCluster(slots=2)
    assert dispatch(cluster, work) == []  # `submit` checks that the parts are finished
    assert cluster.most == 2


def test_a_merge_is_tried_although_one_of_its_parts_has_failed(tmp_path):
    work = make_work(tmp_path, merges=["average"], seeds=[0])
    first, *_, merged = members(work)
    events = {str(first.folder): ["out of memory"], str(merged.folder): ["not finished"]}
    cluster = FakeCluster(events)
    cluster_submit = cluster.submit
    cluster.submit = lambda message: cluster_submit(
        {**message, "members": [{**m, "parts": []} for m in message["members"]]}
    )
    failures = dispatch(cluster, work)
    assert [failure.reason for failure in failures] == ["out of memory", "not finished"]


def test_lost_and_stopped_tasks_start_again_until_they_go_nowhere(tmp_path):
    work = make_work(tmp_path, seeds=[0])
    first, second, *others = members(work)
    step = iter(range(10, 1000, 10))

    def advanced():
        (first.folder / "checkpoints" / str(next(step))).mkdir(parents=True)
        return Lost("killed")

    cluster = FakeCluster(
        {str(first.folder): [advanced] * 9, str(second.folder): [Lost("oom")] * 9}
    )
    cluster.events[str(others[0].folder)] = ["stopped", Lost("x"), "stopped"]
    failures = dispatch(cluster, work)
    assert [failure.member for failure in failures] == [second.name]
    assert failures[0].reason == "oom; given up after 4 starts without a new checkpoint"
    starts = [folder for (folder,) in cluster.started]
    assert starts.count(str(first.folder)) == 10  # each time a checkpoint further
    assert starts.count(str(second.folder)) == 1 + cluster.retries
    assert starts.count(str(others[0].folder)) == 4


def test_a_worker_that_cannot_run_the_task_is_not_tried_again(tmp_path):
    work = make_work(tmp_path, seeds=[0])
    first = members(work)[0]
    cluster = FakeCluster({str(first.folder): [RuntimeError("no module named mtljax")]})
    assert [f.reason for f in dispatch(cluster, work)] == ["no module named mtljax"]


def test_a_result_that_is_not_seen_here_is_a_failure(tmp_path, monkeypatch):
    monkeypatch.setattr("mtljax.comparison.engines.dispatch.VISIBLE_SECONDS", 0)
    work = make_work(tmp_path, seeds=[0], balancers=["ew"])
    cluster = FakeCluster()
    cluster.report = lambda job: Report("node7", (None,), stopped=False)
    failures = dispatch(cluster, work)
    assert len(failures) == len(members(work))
    assert "finished on node7" in failures[0].reason
    assert "file system that all nodes share" in failures[0].reason


def test_sigterm_cancels_all_jobs(tmp_path):
    work = make_work(tmp_path, seeds=[0])
    first = members(work)[0]

    def terminate():
        signal.raise_signal(signal.SIGTERM)

    cluster = FakeCluster({str(first.folder): [terminate]}, slots=3)
    cluster.wait = lambda jobs, seconds: jobs[:1]
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(Stopped) as stopped:
        dispatch(cluster, work)
    assert stopped.value.status == 128 + signal.SIGTERM
    assert len(cluster.canceled) == 2
    assert signal.getsignal(signal.SIGTERM) == before


def test_seeds_train_in_one_task_if_asked_and_rays_if_they_depend_on_each_other(tmp_path):
    names = lambda work: [[m.name for m in task.members] for task in tasks_of(work)]
    alone = names(make_work(tmp_path, balancers=["ew"]))
    assert all(len(part) == 1 for part in alone)
    together = names(make_work(tmp_path, balancers=["ew"], together="yes"))
    assert all(len(part) == 2 for part in together)
    assert sorted(sum(alone, [])) == sorted(sum(together, []))


def test_runs_that_began_side_by_side_stay_in_one_task(tmp_path):
    work = make_work(tmp_path, balancers=["ew"])
    joint = members(work)[0].folder / "joint"
    (joint / "checkpoints" / "10").mkdir(parents=True)
    (joint / "seeds.json").write_text("[0, 1]")
    sizes = [len(task.members) for task in tasks_of(work)]
    assert sizes == [2, 1, 1, 1, 1]
    assert tasks_of(work)[0].saved == 10


def test_the_message_of_a_task_describes_its_runs_completely(tmp_path):
    validation = cross_validation(SMALL, 3, plan(SMALL))
    validation.write(tmp_path)
    methods = plan(SMALL, grid=["learning_rate=0.1,0.01"], merges=["ties:density=0.2"])
    work = make_work(tmp_path, validation=validation, methods=methods)
    for task in tasks_of(work):
        message = json.loads(json.dumps(task.message(work)))
        copies = members_of_message(message)
        for copy, member in zip(copies, task.members, strict=True):
            assert copy.experiment == member.experiment
            assert (copy.name, copy.folder) == (member.name, member.folder)
            assert (copy.parts, copy.fold) == (member.parts, member.fold)
            assert copy.candidate.merge == member.candidate.merge
            assert [p.experiment for p in copy.candidate.parts] == [
                p.experiment for p in member.candidate.parts
            ]
        assert validation_of_message(message) == validation


def test_own_balancers_and_classes_of_a_notebook_are_refused(tmp_path, monkeypatch):
    from mtljax.balancing import BALANCERS, ew

    def mine():
        return ew()

    monkeypatch.setitem(BALANCERS, "mine", mine)
    work = make_work(tmp_path, balancers=["uw", "ew"])
    require_portable(work, "ray")
    methods = plan(SMALL, balancers=["uw"])
    experiment = dataclasses.replace(SMALL, balancer="uw")
    object.__setattr__(experiment, "balancer", "uw+mine")
    candidate = dataclasses.replace(methods[-1].candidates[0], experiment=experiment)
    methods = [dataclasses.replace(methods[-1], candidates=(candidate,))]
    with pytest.raises(ValueError, match="--engine ray: balancer 'mine' was added by .*local"):
        require_portable(make_work(tmp_path, methods=methods), "ray")

    task = type("Digit", (type(SMALL.tasks[0]),), {"__module__": "__main__"})
    tasks = (task(name="digit", num_classes=10), SMALL.tasks[1])
    candidate = dataclasses.replace(candidate, experiment=dataclasses.replace(SMALL, tasks=tasks))
    methods = [dataclasses.replace(methods[-1], candidates=(candidate,))]
    members_ = [m._replace(candidate=candidate) for m in members(work)[:1]]
    with pytest.raises(ValueError, match="class Digit of task 'digit' is defined in a notebook"):
        require_portable(work._replace(groups=[members_]), "slurm")


def test_rays_that_learn_from_each_other_are_one_task_per_seed(tmp_path):
    from mtljax.pareto.plan import plan as plan_front

    planned = plan_front(SMALL, ["hypervolume", "epo"], 3)
    tasks = tasks_of(make_work(tmp_path, methods=planned.methods))
    sizes = {}
    for task in tasks:
        name = task.members[0].candidate.experiment.balancer.partition("@")[0].partition(":")[0]
        sizes.setdefault(name, []).append(len(task.members))
        assert len({member.seed for member in task.members}) == 1
    assert sizes["hypervolume"] == [3, 3]
    assert set(sizes["epo"]) == {1}
