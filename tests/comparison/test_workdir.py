"""Output folders that another process writes to: one line, and nothing is overwritten."""

import os

import pytest
from support.cli import SMALL, finish, start, wait_until

from mtljax.comparison.workdir import locked_workdir
from mtljax.main import main

VERBS = {"compare": "comparison", "front": "front", "group": "grouping"}


def contents(folder):
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*")}


@pytest.mark.parametrize("verb", VERBS)
def test_folder_in_use_is_refused_and_unchanged(verb, tmp_path, capsys):
    folder = tmp_path / "out"
    experiment = ("--experiment", "multi_digits", "--quiet")
    with locked_workdir(folder, "members", "comparison"):
        before = contents(folder)
        assert main([verb, *experiment, "--workdir", str(folder)]) == 2
        assert contents(folder) == before
    (line,) = capsys.readouterr().err.splitlines()
    assert line == f"mtljax: another run is writing to {folder}; choose another --workdir"


def test_lock_is_released_and_a_new_folder_without_content_removed(tmp_path):
    folder = tmp_path / "runs" / "out"
    with locked_workdir(folder, "members", "comparison"):
        pass
    assert not list(tmp_path.iterdir())
    for _ in range(2):
        with locked_workdir(folder, "members", "comparison"):
            (folder / "members").mkdir(exist_ok=True)
    assert [path.name for path in folder.iterdir()] == ["members"]


@pytest.mark.full
def test_of_two_comparisons_that_are_started_together_one_is_refused(tmp_path):
    flags = ("compare", *SMALL, "--steps", "200000", "--seeds", "1", "--workdir", tmp_path / "out")
    processes = [start(*flags, "--quiet", cache=os.environ["MTLJAX_CACHE"]) for _ in range(2)]
    wait_until(lambda: False, *processes)  # until one of them has ended
    refused = next(process for process in processes if process.poll() is not None)
    line = f"mtljax: another run is writing to {tmp_path / 'out'}; choose another --workdir\n"
    assert finish(refused) == (2, "", line)
    (running,) = {*processes} - {refused}
    trained = lambda: list(tmp_path.glob("out/members/*/*/metrics.jsonl"))
    wait_until(trained, running)
    assert len(trained()) == 1
    assert running.poll() is None
