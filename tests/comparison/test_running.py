"""Small comparisons that are really trained: what is run, what is not, and what goes wrong."""

import dataclasses
import json

import numpy as np
import pytest
from support.cli import without_announcements
from support.comparison import SMALL as EXPERIMENT

from mtljax.comparison import member_training
from mtljax.comparison.compare import compare
from mtljax.comparison.members import Member
from mtljax.main import main
from mtljax.runs.checkpoints import Checkpoints
from mtljax.training.loop import train, train_group
from mtljax.training.programs import Programs
from mtljax.training.setup import set_up

ASKED = {"balancers": ("ew",), "seeds": 2, "devices": 1, "quiet": True}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The folder of a finished comparison."""
    folder = tmp_path_factory.mktemp("comparison") / "compared"
    compare(EXPERIMENT, folder, **ASKED)
    return folder


def results(folder):
    """{run folder: when its result was written}."""
    return {f.parent: f.stat().st_mtime_ns for f in folder.glob("members/*/*/result.json")}


def tables(folder):
    return {name: (folder / name).read_text() for name in ("results.csv", "results.md")}


def close(ours, theirs, rtol=1e-5):
    """Nested numbers agree, whatever the clock says."""
    assert type(ours) is type(theirs)
    if isinstance(ours, dict):
        assert ours.keys() == theirs.keys()
        for name in ours.keys() - {"seconds", "examples_per_second"}:
            close(ours[name], theirs[name], rtol)
    elif isinstance(ours, list):
        assert len(ours) == len(theirs)
        for a, b in zip(ours, theirs, strict=True):
            close(a, b, rtol)
    elif isinstance(ours, float):
        np.testing.assert_allclose(ours, theirs, rtol=rtol, atol=1e-6)
    else:
        assert ours == theirs


@pytest.mark.full
def test_seeds_side_by_side_are_separate_runs(tmp_path):
    runs = [dataclasses.replace(EXPERIMENT, seed=seed) for seed in (0, 7, 3)]
    folders = [tmp_path / f"together-{run.seed}" for run in runs]
    programs = Programs(set_up(EXPERIMENT, devices=1))
    assert programs.is_faster_stacked
    train_group(runs, folders, programs, quiet=True, report=False)
    for run, folder in zip(runs, folders, strict=True):
        alone = tmp_path / f"alone-{run.seed}"
        train(run, alone, devices=1, quiet=True)
        read = lambda at, name: (at / name).read_text()
        assert read(folder, "config.json") == read(alone, "config.json")
        lines = [
            [json.loads(line) for line in read(at, "metrics.jsonl").splitlines()]
            for at in (folder, alone)
        ]
        close(*lines)
        ours, theirs = (json.loads(read(at, "result.json")) for at in (folder, alone))
        for part in ("test", "validation", "best_step", "parameters", "telemetry", "skipped"):
            close(ours[part], theirs[part])
        saved = [Checkpoints(at, read_only=True) for at in (folder, alone)]
        assert saved[0].latest() == saved[1].latest() == 30
        assert saved[0].best() == saved[1].best()
        names = lambda at: {p.name for p in (at / "checkpoints").iterdir()}
        assert names(folder) == names(alone)
        ours, theirs = (checkpoints.read(30) for checkpoints in saved)
        assert ours.keys() == theirs.keys()
        for name in ours:
            np.testing.assert_allclose(ours[name], theirs[name], rtol=1e-5, atol=1e-6)
        for checkpoints in saved:
            checkpoints.close()


@pytest.mark.slow
def test_seeds_are_spread_over_devices(tmp_path):
    runs = [dataclasses.replace(EXPERIMENT, seed=seed, steps=10) for seed in range(4)]
    one, several = (Programs(set_up(runs[0], devices=devices)) for devices in (1, 8))
    assert several.runs_placement(4).mesh.size == 4
    assert several.runs_placement(6).mesh.size == 6
    assert several.runs_placement(9).mesh.size == 3
    for name, programs in (("one", one), ("several", several)):
        folders = [tmp_path / f"{name}-{run.seed}" for run in runs]
        train_group(runs, folders, programs, quiet=True, report=False)
    for seed in range(4):
        ours, theirs = (
            json.loads((tmp_path / f"{name}-{seed}" / "result.json").read_text())
            for name in ("several", "one")
        )
        close(ours["test"], theirs["test"])


def test_finished_members_are_not_run_again(folder, monkeypatch):
    before, said = results(folder), tables(folder)
    monkeypatch.setattr(member_training, "train_group", lambda *_, **__: 1 / 0)
    compare(EXPERIMENT, folder, **ASKED)
    assert results(folder) == before
    assert tables(folder) == said


@pytest.mark.full
def test_another_method_or_seed_runs_only_what_is_new(folder):
    before = results(folder)
    found, failures = compare(EXPERIMENT, folder, **{**ASKED, "seeds": 3})
    assert failures == []
    after = results(folder)
    assert len(before) == 3 * 2
    assert len(after) == 3 * 3
    assert before.items() <= after.items()
    assert all(path.name == "seed-2" for path in after.keys() - before.keys())
    assert found.seeds == (0, 1, 2)


@pytest.mark.full
def test_a_member_that_fails_is_named_and_takes_no_other_along(tmp_path, capsys):
    # A step size of 1e30 makes one method's parameters infinite, and its run stops.
    flags = ["compare", "--experiment", "digits", "--trunk", "mlp:widths=(4,),norm=none"]
    flags += ["--steps", "20", "--eval-every", "10", "--schedule", "constant", "--seeds", "1"]
    flags += ["--max-skipped", "2", "--optimizer", "sgd", "--data.augment", "none"]
    flags += ["--balancers", "ew", "fixed:weights=(1e30,1e30)", "--devices", "1", "--quiet"]
    assert main([*flags, "--workdir", str(tmp_path)]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert "fixed:weights=(1e30,1e30), seed 0 failed" in err
    assert "not finite" in err
    table = (tmp_path / "results.md").read_text()
    assert "| fixed:weights=(1e30,1e30) | n/a | n/a | n/a |  |" in table
    assert "n/a" not in next(line for line in table.splitlines() if line.startswith("| ew"))
    assert "could not be trained" in (tmp_path / "report.html").read_text()


@pytest.mark.full
def test_a_members_own_page_is_drawn_when_it_is_asked_for(folder):
    run = next(folder.glob("members/ew-digit-value-*/seed-1"))
    before = results(folder)
    assert not (run / "report.html").exists()
    flags = ["--experiment", str(run / "config.json"), "--workdir", str(run), "--devices", "1"]
    assert main([*flags, "--quiet"]) == 0
    assert "On 360 test images" in (run / "report.html").read_text()
    assert results(folder) == before


def test_runs_go_on_together_from_a_step_that_all_have(tmp_path):
    saved = {0: (), 1: (10, 20), 2: (20, 30), 3: (20,), 4: (30,)}
    members = []
    for seed, steps in saved.items():
        member = Member(None, None, seed, tmp_path / str(seed))
        for step in steps:
            (member.folder / "checkpoints" / str(step)).mkdir(parents=True)
        members.append(member)
    seeds = lambda members: [[m.seed for m in part] for part in member_training.rounds(members)]
    assert seeds(members[1:]) == [[1, 2, 3], [4]]
    assert seeds(members) == [[0, 1, 2, 3, 4]]  # one has to begin, so all do


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (("--seeds", "0"), "--seeds must be >= 1, not 0"),
        (("--folds", "1"), "--folds must be >= 2, not 1"),
        (("--folds", "-5"), "--folds must be >= 2, not -5"),
        (("--folds", "2000"), "2000 folds need at least 2000 examples, but the data has 1797"),
        (("--folds", "5", "--data.fold", "1/5"), "--folds trains all folds; leave out data.fold"),
        (("--folds", "5", "--data.source", "digits:per_class=9"), "cannot be divided into folds"),
        (("--balancers", "ew", "uwe"), "unknown balancer 'uwe'; did you mean 'uw'?"),
        (("--seeds", "many"), "--seeds must be none or an integer, not 'many'"),
        (("--balancer", "uwe"), "unknown balancer 'uwe'"),
        (("--workdir", "mine"), "mine is not empty and not a comparison folder"),
        (("--workdir", "nowhere://runs"), "nowhere://runs cannot be opened: Protocol not known"),
        (("--engine", "rya"), "unknown engine 'rya'; did you mean 'ray'?"),
        (("--engine", "ray:cpu=2"), "engine 'ray' has no argument 'cpu'; did you mean 'cpus'?"),
        (("--engine", "slurm:minutes=0"), "minutes must be >= 3, not 0"),
    ],
)
def test_bad_input_is_refused_before_anything_is_written(
    flags, words, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    assert main(["compare", "--experiment", "digits", *flags]) == 2
    out, err = capsys.readouterr()
    assert without_announcements(out) == ""
    assert words in err
    assert [p.name for p in tmp_path.rglob("*")] == ["mine", "thesis.txt"]
