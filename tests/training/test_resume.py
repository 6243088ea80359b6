"""A run that is killed, or asked to stop, at any moment goes on as if nothing had happened."""

import json
import os
import signal
import time

import numpy as np
import pytest
from support.cli import SMALL, TRAINED, finish, start, wait_until
from support.same_run import assert_the_same_run, lines, states

from mtljax.main import main
from mtljax.training.recorder import Recorder

FLAGS = (*SMALL, "--steps", "400", "--log-every", "10", "--eval-every", "20", "--quiet")
STEPS, EVALUATIONS = range(10, 401, 10), range(20, 401, 20)


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory, cache):
    """The folder of a run that nobody disturbs."""
    folder = tmp_path_factory.mktemp("undisturbed") / "run"
    assert finish(start(*FLAGS, "--workdir", folder, cache=cache)) == (0, "", "")
    assert [line["step"] for line in lines(folder) if "loss" in line] == list(STEPS)
    assert [line["step"] for line in lines(folder) if "score" in line] == list(EVALUATIONS)
    return folder


@pytest.mark.slow
def test_killed_at_any_moment(undisturbed, cache, tmp_path):
    folder, chance = tmp_path / "run", np.random.default_rng(0)
    checkpoints, written = folder / "checkpoints", folder / "metrics.jsonl"
    names = lambda: {path.name for path in checkpoints.glob("*")}
    complete = lambda names: any(name.isdecimal() for name in names)
    size = lambda: written.stat().st_size if written.exists() else 0
    moments = [  # what to wait for, given what was there before, and how long after it to kill
        ("at birth", lambda *_: True, 0),
        ("while modules are loaded", lambda *_: True, chance.uniform(0, 2)),
        ("when the folder is there", lambda *_: folder.exists(), 0),
        ("when the configuration is there", lambda *_: (folder / "config.json").exists(), 0),
        ("while the first checkpoint is made", lambda *_: checkpoints.exists(), 0),
        ("after the first line", lambda *_: size() > 0, 0),
        ("when there is a checkpoint", lambda *_: complete(names()), 0),
        ("when there is a new checkpoint", lambda before, _: complete(names() - before), 0),
        ("while one is written", lambda before, _: "tmp" in "".join(names() - before), 0),
        ("after a line", lambda _, length: size() > length, 0),
        ("in the midst of steps", lambda _, length: size() > length, chance.uniform(0, 0.2)),
        ("later", lambda _, length: size() > length, chance.uniform(0, 0.2)),
        ("while the report is drawn", lambda *_: '"step": 400, "v' in written.read_text(), 0.5),
    ]
    kills = 0
    for name, reached, later in moments:
        before, length = names(), size()
        process = start(*FLAGS, "--workdir", folder, cache=cache)
        wait_until(lambda: reached(before, length), process)  # noqa: B023
        time.sleep(later)
        process.kill()
        status, _, err = finish(process)
        assert status in (-signal.SIGKILL, 0), (name, err)
        kills += status == -signal.SIGKILL
    assert kills >= 10
    assert finish(start(*FLAGS, "--workdir", folder, cache=cache)) == (0, "", "")
    assert_the_same_run(folder, undisturbed)


@pytest.mark.full
def test_sigterm_saves_and_says_how_to_go_on(undisturbed, cache, tmp_path):
    folder = tmp_path / "run"
    process = start(*FLAGS, "--workdir", folder, cache=cache)
    wait_until(lambda: (folder / "metrics.jsonl").exists() and lines(folder), process)
    process.terminate()
    status, out, err = finish(process)
    assert status == 128 + signal.SIGTERM, err
    assert out == ""
    step = max(states(folder))
    assert 0 < step < 400
    assert (
        err == f"mtljax: stopped at step {step} and saved; --workdir {folder} resumes from there\n"
    )
    assert finish(start(*FLAGS, "--workdir", folder, cache=cache)) == (0, "", "")
    assert_the_same_run(folder, undisturbed)


def test_sigterm_between_evaluations(trained_run, tmp_path, monkeypatch, capsys):
    add, at = Recorder.add, [2, 4, 6]

    def add_and_be_stopped(self, step, *rest):
        if step in at:
            at.remove(step)
            os.kill(os.getpid(), signal.SIGTERM)
        add(self, step, *rest)

    monkeypatch.setattr(Recorder, "add", add_and_be_stopped)
    flags = [*TRAINED, "--workdir", str(tmp_path), "--quiet"]
    for step in (2, 4, 6):
        assert main(flags) == 128 + signal.SIGTERM
        assert f"stopped at step {step} and saved" in capsys.readouterr().err
        assert max(states(tmp_path)) == step
    assert main(flags) == 0
    assert_the_same_run(tmp_path, trained_run)


@pytest.mark.full
def test_a_line_that_was_cut_off_is_written_again(trained_run, tmp_path, monkeypatch):
    flags = [*TRAINED, "--workdir", str(tmp_path), "--quiet"]
    monkeypatch.setattr(Recorder, "speed", lambda self: 1 / 0)  # dies after the last checkpoint
    with pytest.raises(ZeroDivisionError):
        main(flags)
    monkeypatch.undo()
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 8, "loss": {"dig')
    assert main(flags) == 0
    assert_the_same_run(tmp_path, trained_run)
    result = json.loads((tmp_path / "result.json").read_text())
    assert result["ms_per_step"] > 0  # though this process took no step


@pytest.mark.full
def test_two_runs_at_once_do_not_share_a_folder(tmp_path, monkeypatch, capsys):
    add, seen = Recorder.add, []

    def add_while_another_tries(self, step, *rest):
        if not seen:
            seen.append(main(flags))
            seen.append(capsys.readouterr().err)
        add(self, step, *rest)

    monkeypatch.setattr(Recorder, "add", add_while_another_tries)
    flags = [*TRAINED, "--workdir", str(tmp_path), "--quiet"]
    assert main(flags) == 0
    assert seen[0] == 2
    assert seen[1].endswith(f"another run is writing to {tmp_path}; choose another --workdir\n")
