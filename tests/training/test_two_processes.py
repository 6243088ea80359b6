"""Two processes that stream a folder of files are stopped at any moment and go on.

An epoch has 26 examples and a batch 8, so nearly every step ends in the middle of one.
"""

import signal

import numpy as np
import pytest
from support.cli import finish, wait_until
from support.folders import make_folder, write_experiment
from support.processes import lines, start_two

from mtljax.runs.checkpoints import Checkpoints

STEPS = 1200


def train(experiment, folder, cache):
    flags = ("--trunk", "mlp:widths=(8,)", "--data.keep-on-device", "no", "--steps", STEPS)
    often = ("--log-every", 5, "--eval-every", STEPS, "--schedule", "constant", "--quiet")
    return start_two("--experiment", experiment, *flags, *often, "--workdir", folder, cache=cache)


def numbers(folder):
    return [(line["step"], line["loss"]) for line in lines(folder) if "loss" in line]


def weights(folder):
    checkpoints = Checkpoints(folder, read_only=True)
    found = checkpoints.read(STEPS)
    checkpoints.close()
    return found


@pytest.mark.slow
def test_they_go_on_with_the_exact_next_examples(tmp_path):
    make_folder(tmp_path / "pets", 52)
    experiment = write_experiment(tmp_path / "pets.py", tmp_path / "pets", ("kind", "weight"))
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    done = list(map(finish, train(experiment, whole, tmp_path)))
    assert [status for status, _, _ in done] == [0, 0], done

    processes = train(experiment, parts, tmp_path)
    wait_until(lambda: (parts / "metrics.jsonl").exists() and lines(parts), *processes)
    processes[0].terminate()
    done = list(map(finish, processes))
    assert [status for status, _, _ in done] == [128 + signal.SIGTERM] * 2, done
    stopped = lines(parts)[-1]["step"]
    assert 0 < stopped < STEPS

    assert [done[0] for done in map(finish, train(experiment, parts, tmp_path))] == [0, 0]
    assert numbers(parts) == numbers(whole)
    ours, theirs = weights(parts), weights(whole)
    assert ours.keys() == theirs.keys()
    for name in ours:
        np.testing.assert_array_equal(ours[name], theirs[name], err_msg=name)
