"""A full disk, and a folder that another run has written to: one line, and nothing is lost."""

import time

import pytest
from support.cli import TRAINED
from support.disk import fill, mounted
from support.same_run import assert_the_same_run

from mtljax.main import main
from mtljax.runs.checkpoints import saved_steps
from mtljax.training import loop
from mtljax.training.recorder import Recorder


@pytest.fixture
def disk(tmp_path):
    with mounted(tmp_path / "disk", megabytes=16) as folder:
        yield folder


@pytest.mark.parametrize("left", [0, 4096])
def test_a_run_does_not_start_on_a_full_disk(left, disk, capfd):
    fill(disk, left)
    assert main([*TRAINED, "--workdir", str(disk / "run"), "--quiet"]) == 2
    (line,) = capfd.readouterr().err.splitlines()
    assert line.startswith(f"mtljax: cannot write to {disk / 'run'}: No space left on device")


@pytest.mark.full
def test_a_run_is_resumed_after_the_disk_was_full(disk, trained_run, monkeypatch, capfd):
    add, fillers = Recorder.add, []

    def add_on_a_full_disk(self, step, *rest):
        if step == 6:
            while saved_steps(disk / "run") != [3]:  # it is written in the background
                time.sleep(0.01)
            fillers.append(fill(disk))
        add(self, step, *rest)

    flags = [*TRAINED, "--workdir", str(disk / "run"), "--quiet"]
    with monkeypatch.context() as patch:
        patch.setattr(Recorder, "add", add_on_a_full_disk)
        assert main(flags) == 1
    (line,) = capfd.readouterr().err.splitlines()
    assert "No space left on device; --workdir" in line
    assert line.endswith("resumes from the last checkpoint")
    assert saved_steps(disk / "run") == [3]
    fillers[0].unlink()
    assert main(flags) == 0
    assert_the_same_run(disk / "run", trained_run)


def test_a_run_that_another_one_has_just_continued_is_refused(tmp_path, monkeypatch, capsys):
    steps = iter([0, 3])
    monkeypatch.setattr(loop, "resume_step", lambda *_: next(steps))
    assert main([*TRAINED, "--workdir", str(tmp_path / "run"), "--quiet"]) == 2
    assert f"another run has just written to {tmp_path / 'run'}; " in capsys.readouterr().err
    assert not (tmp_path / "run" / "metrics.jsonl").exists()
