"""Distributed runs survive SIGTERM, kill -9 and SIGSTOP of any process at any time."""

import random
import signal

import numpy as np
import pytest
from support.cli import finish
from support.faults import BOUND, Fault, Job, random_fault
from support.same_run import assert_the_same_run, lines, outcome, states

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
    assert job.suffer(Fault(signal.SIGKILL, 1))
    assert job.suffer(Fault(signal.SIGTERM, 1))
    assert job.suffer(Fault(signal.SIGSTOP, 0))
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


@pytest.mark.slow
@pytest.mark.parametrize("others", [[(1, 1)], [(1, 4), (4, 1)]])
def test_a_run_goes_on_with_other_numbers_of_processes_and_devices(
    others, undisturbed, cache, tmp_path
):
    def job(count, devices):
        return Job(tmp_path / "run", count, steps=STEPS, cache=cache, devices=devices)

    for count, devices in [(2, 1), *others[:-1]]:
        assert job(count, devices).suffer(Fault(signal.SIGTERM, count - 1))
    job(*others[-1]).finish()
    ours, theirs = (states(folder)[STEPS] for folder in (tmp_path / "run", undisturbed(2)))
    assert ours.keys() == theirs.keys()
    for name, leaf in ours.items():
        np.testing.assert_allclose(leaf, theirs[name], rtol=1e-5, atol=1e-5, err_msg=name)
    ours, theirs = (lines(folder) for folder in (tmp_path / "run", undisturbed(2)))
    assert [line["step"] for line in ours] == [line["step"] for line in theirs]


@pytest.mark.slow
@pytest.mark.parametrize("flags", ["--encrypt", "--sharding fsdp:min_size=64"])
def test_encrypted_and_sharded_runs_survive_faults(flags, cache, tmp_path):
    pyrage = pytest.importorskip("pyrage")
    key = tmp_path / "key.txt"
    key.write_text(str(pyrage.x25519.Identity.generate()))
    settings = {"flags": flags.split(), "variables": {"MTLJAX_KEY_FILE": str(key)}}
    whole, job = (Job(tmp_path / x, 2, steps=STEPS, cache=cache, **settings) for x in ("a", "b"))
    whole.finish()
    assert job.suffer(Fault(signal.SIGTERM, 0))
    assert job.suffer(Fault(signal.SIGKILL, 1))
    job.finish()
    assert lines(job.folder) == lines(whole.folder)
    assert outcome(job.folder) == outcome(whole.folder)


@pytest.mark.full
def test_the_failure_of_one_process_ends_all_with_its_message(cache, tmp_path):
    pyrage = pytest.importorskip("pyrage")
    key = tmp_path / "key.txt"
    key.write_text(str(pyrage.x25519.Identity.generate()))
    job = Job(tmp_path / "run", 2, steps=STEPS, cache=cache, flags=["--encrypt"])
    one, other = job.start(lambda index: {"MTLJAX_KEY_FILE": str(key)} if index == 0 else {})
    (status, _, err), (failed, _, reason) = finish(one, BOUND), finish(other, BOUND)
    assert (status, failed) == (2, 2)
    assert "set MTLJAX_KEY_FILE" in reason
    assert err == reason.replace("mtljax: ", "mtljax: process 1 of 2 failed: ")
