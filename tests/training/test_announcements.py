"""Lines of a run whose output is not a terminal: what it is doing, from the first seconds on."""

import time

import pytest
from support.cli import SMALL, finish, start

from mtljax.main import main
from mtljax.utils import terminal

STEPS = ("--steps", "2", "--log-every", "1", "--eval-every", "2")


def test_a_redirected_run_says_what_it_is_doing(tmp_path):
    process = start(*SMALL, *STEPS, "--workdir", tmp_path / "run", cache=tmp_path / "cache")
    status, out, err = finish(process)
    assert status == 0, err
    said = [text.split(":")[0] for text in out.splitlines()[:6]]
    assert said == [
        "experiment digits, 2 steps",
        "reading digits",
        "examples",
        "reading 1,293 training examples into device memory",
        "compiling the train step",
        said[5],
    ]
    assert said[5].startswith("first step done in ")


def test_a_quiet_run_prints_none_of_these_lines(tmp_path, capsys):
    assert main([*SMALL, *STEPS, "--workdir", str(tmp_path), "--quiet"]) == 0
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("enabled", [True, False])
def test_a_long_phase_is_reminded_of_at_growing_intervals(enabled, capsys, monkeypatch):
    monkeypatch.setattr(terminal, "FIRST_REMINDER", 0.1)
    with terminal.announcements(enabled), terminal.phase("compiling"):
        time.sleep(0.55)
    with terminal.phase("outside"):
        pass
    lines = capsys.readouterr().out.splitlines()
    assert lines[:1] == ["compiling"][: len(lines)]
    assert len(lines) == (4 if enabled else 0), lines  # and after 0.1, 0.2 and 0.4 s
    assert all(line.startswith("compiling: 0 s so far") for line in lines[1:])


@pytest.mark.parametrize(
    ("norm", "flags", "warned"),
    [
        ("batch", ("--microbatches", "2"), True),
        ("batch", (), False),
        ("group", ("--microbatches", "2"), False),
    ],
)
def test_microbatches_that_change_the_statistics_are_a_warning(
    norm, flags, warned, tmp_path, capsys
):
    trunk = ("--trunk", f"mlp:widths=(8,),norm={norm}")
    command = [*SMALL, *trunk, *flags, "--steps", "1", "--workdir", str(tmp_path)]
    assert main(command) == 0
    out = capsys.readouterr().out
    warning = "with 2 microbatches, batch normalization uses the statistics of 32 examples"
    assert (warning in out) == warned
