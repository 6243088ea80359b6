"""Distributed runs survive SIGTERM, kill -9 and SIGSTOP of any process at any time."""

import random
import signal

import pytest
from support.faults import Fault, Job, random_fault
from support.same_run import assert_the_same_run

STEPS = 400


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory, cache):
    """Folders of undisturbed runs, by number of processes."""
    made = {}

    def folder(count):
        if count not in made:
            made[count] = tmp_path_factory.mktemp(f"whole{count}") / "run"
            Job(made[count], count, steps=STEPS, cache=cache).finish()
        return made[count]

    return folder


@pytest.mark.full
def test_a_run_survives_each_kind_of_fault(undisturbed, cache, tmp_path):
    job = Job(tmp_path / "run", 2, steps=STEPS, cache=cache)
    job.suffer(Fault(signal.SIGKILL, 1))
    job.suffer(Fault(signal.SIGTERM, 1))
    job.suffer(Fault(signal.SIGSTOP, 0))
    job.finish()
    assert_the_same_run(job.folder, undisturbed(2))


@pytest.mark.slow
@pytest.mark.parametrize("count", [2, 4])
def test_runs_survive_faults_at_any_time(count, undisturbed, cache, tmp_path):
    rng, left, number = random.Random(count), 20, 0
    while left:
        number += 1
        job = Job(tmp_path / f"run{number}", count, steps=STEPS, cache=cache)
        while left and job.suffer(random_fault(rng, count)):
            left -= 1
        job.finish()
        assert_the_same_run(job.folder, undisturbed(count))
