"""Several processes that train together give what one process gives."""

import json
import re
import signal

import numpy as np
import pytest
from support.cli import SMALL, finish, start, wait_until
from support.processes import lines, start_two

from mtljax.runs.checkpoints import Checkpoints

FLAGS = (*SMALL, "--steps", "20", "--log-every", "5", "--eval-every", "10")


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


GLOO = re.compile(
    r"\[Gloo\] Rank|is connected to|peer ranks\.|Expected number of connected peer ranks is :|\d|\s"
)
"""What Gloo writes to standard output, in pieces: its threads write into each other's lines."""


@pytest.fixture(scope="module")
def alone(tmp_path_factory, cache):
    """A run of one process with as many devices as two processes have together."""
    folder = tmp_path_factory.mktemp("alone") / "run"
    done = finish(start(*FLAGS, "--workdir", folder, "--quiet", cache=cache, devices=4))
    assert done == (0, "", "")
    return folder


def saved(folder):
    checkpoints = Checkpoints(folder, read_only=True)
    found = checkpoints.read(20)
    checkpoints.close()
    return found


def assert_the_same_run(folder, alone):
    ours, theirs = saved(folder), saved(alone)
    assert ours.keys() == theirs.keys()
    for name, leaf in ours.items():
        # Gloo adds up the parts of two processes in another order than one process does.
        np.testing.assert_allclose(leaf, theirs[name], rtol=1e-5, atol=1e-6, err_msg=name)
    assert [line["step"] for line in lines(folder)] == [line["step"] for line in lines(alone)]
    for ours, theirs in zip(lines(folder), lines(alone), strict=True):
        for task, loss in theirs.get("loss", {}).items():
            assert ours["loss"][task] == pytest.approx(loss, rel=1e-5)
    ours, theirs = (json.loads((f / "result.json").read_text()) for f in (folder, alone))
    for split in ("validation", "test"):
        for task, metrics in theirs[split].items():
            for name, value in metrics.items():
                np.testing.assert_allclose(ours[split][task][name], value, rtol=1e-5)
    assert ours["parameters"] == theirs["parameters"]
    assert ours["device"] == theirs["device"]


@pytest.mark.parametrize(
    "keep",
    [pytest.param("yes", marks=pytest.mark.full), pytest.param("no", marks=pytest.mark.slow)],
)
def test_two_processes_train_as_one(keep, alone, cache, tmp_path):
    flags = (*FLAGS, "--data.keep-on-device", keep, "--workdir", tmp_path / "run")
    (status, out, err), (other, nothing, quiet) = map(finish, start_two(*flags, cache=cache))
    assert status == other == 0, err + quiet
    assert "report: " in out
    assert not GLOO.sub("", nothing), nothing
    assert (tmp_path / "run" / "report.html").exists()
    assert_the_same_run(tmp_path / "run", alone)


@pytest.mark.slow
def test_two_processes_with_sharded_parameters_train_as_one(alone, cache, tmp_path):
    flags = (*FLAGS, "--sharding", "fsdp:min_size=64", "--workdir", tmp_path / "run", "--quiet")
    for status, _, err in map(finish, start_two(*flags, cache=cache)):
        assert status == 0, err
    assert_the_same_run(tmp_path / "run", alone)


@pytest.mark.slow
def test_sigterm_to_one_saves_and_stops_all(cache, tmp_path):
    folder = tmp_path / "run"
    flags = ("--steps", 20_000, "--eval-every", 10_000, "--workdir", folder, "--quiet")
    processes = start_two(*SMALL, *flags, cache=cache)
    wait_until(lambda: (folder / "metrics.jsonl").exists() and lines(folder), *processes)
    processes[1].terminate()
    (status, _, err), (other, _, quiet) = map(finish, processes)
    assert status == other == 128 + signal.SIGTERM, err + quiet
    assert "and saved; --workdir" in err
    checkpoints = Checkpoints(folder, read_only=True)
    assert checkpoints.latest() == lines(folder)[-1]["step"] < 10_000
    checkpoints.close()


@pytest.mark.slow
def test_two_processes_start_from_what_one_starts_from(alone, cache, tmp_path):
    flags = (*FLAGS, "--init", alone, "--init-part", "all", "--quiet")
    one = (*flags, "--workdir", tmp_path / "one")
    assert finish(start(*one, cache=cache, devices=4)) == (0, "", "")
    processes = start_two(*flags, "--workdir", tmp_path / "two", cache=cache)
    for status, _, err in map(finish, processes):
        assert status == 0, err
    assert_the_same_run(tmp_path / "two", tmp_path / "one")
