"""A comparison that is killed goes on, repeats nothing, and ends as if nothing had happened."""

import json
import os
import signal
import time

import numpy as np
import pytest
from support.cli import SMALL, finish, start, wait_until

FLAGS = (
    *("compare", *SMALL, "--steps", "200", "--log-every", "5", "--eval-every", "10"),
    *("--balancers", "pcgrad", "--seeds", "2", "--quiet"),
)
TABLES = ("results.csv", "results.md", "results.tex")


def results(folder):
    """{run folder: when its result was written}."""
    found = folder.glob("members/*/*/result.json")
    return {str(f.parent.relative_to(folder)): f.stat().st_mtime_ns for f in found}


@pytest.mark.slow
@pytest.mark.parametrize("together", ["yes", "no"])
def test_killed_at_any_moment(together, tmp_path):
    flags, cache = (*FLAGS, "--together", together), os.environ["MTLJAX_CACHE"]
    whole, folder = tmp_path / "whole", tmp_path / "killed"
    assert finish(start(*flags, "--workdir", whole, cache=cache)) == (0, "", "")
    assert len(results(whole)) == 3 * 2

    chance, kills = np.random.default_rng(0), 0
    lines = lambda: sum(f.stat().st_size for f in folder.glob("members/*/*/metrics.jsonl"))
    saved = lambda: len(list(folder.rglob("checkpoints/[0-9]*")))
    moments = [  # what to wait for, given what was there before, and how long after it to kill
        lambda before: saved() > before[1],
        lambda before: lines() > before[0],
        lambda before: len(results(folder)) > before[2],
        lambda before: saved() > before[1] + 1,
        lambda before: len(results(folder)) > before[2],
        lambda before: lines() > before[0],
    ]
    finished = {}
    for reached in moments:
        before = lines(), saved(), len(results(folder))
        process = start(*flags, "--workdir", folder, cache=cache)
        wait_until(lambda: reached(before), process)  # noqa: B023
        time.sleep(chance.uniform(0, 0.1))
        process.kill()
        status, _, err = finish(process)
        assert status in (-signal.SIGKILL, 0), err
        kills += status == -signal.SIGKILL
        assert finished.items() <= results(folder).items()  # none was run again
        finished = results(folder)
    assert kills >= 4
    assert finish(start(*flags, "--workdir", folder, cache=cache)) == (0, "", "")
    assert finished.items() <= results(folder).items()
    for name in TABLES:
        assert (folder / name).read_text() == (whole / name).read_text()
    for run in results(whole):
        ours, theirs = (
            json.loads((at / run / "result.json").read_text()) for at in (folder, whole)
        )
        for part in ("test", "validation", "best_step", "skipped", "parameters"):
            assert ours[part] == theirs[part], (run, part)
