"""Parent of a process of a distributed run: what it prints, its status, and signals."""

import os
import signal
import sys

import pytest
from support.cli import ROOT, finish, launch

from mtljax.cli.supervisor import is_needed
from mtljax.utils.peers import LOST, PARENT, REMEDY

HOW = ("--coordinator", "host:1", "--num-processes", "4", "--process-id", "2")
SCRIPT = """
import os, signal, sys, time
from mtljax.cli.supervisor import is_needed, supervise
if is_needed(sys.argv[2:]):
    sys.exit(supervise(sys.argv[2:]))
sys.stderr.write("a warning\\n")
exec(sys.argv[1])
"""
GONE = (
    "E1129 19:20:30.97 30061 coordination_service_agent.cc:289] Polled an error\\n"
    "F1129 19:20:30.97 30061 client.h:80] Terminating process because of: {}\\n"
    "*** Check failure stack trace: ***\\n    @  0x7fe1c7240634  absl::LogMessage()\\n"
)


def supervised(tmp_path, code):
    (tmp_path / "script.py").write_text(SCRIPT)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    environment.pop(PARENT, None)
    return launch([sys.executable, tmp_path / "script.py", code, *HOW], env=environment)


@pytest.mark.parametrize(
    ("reason", "line"),
    [
        ("unhealthy (stopped sending heartbeats):\\n3\\nThe", "process 3 of 4 ended"),
        ("Failed to send RPC to coordination service: Socket closed", "process 0 of 4 ended"),
        ("anything else", "another process ended"),
        ("Deadline Exceeded RPC: /RegisterTask", "the other processes did not start"),
    ],
)
def test_an_abort_inside_jax_is_one_line(reason, line, tmp_path):
    code = f'sys.stderr.write("{GONE.format(reason)}"); sys.stderr.flush(); os.abort()'
    status, _, err = finish(supervised(tmp_path, code))
    assert status == LOST
    warning, message = err.splitlines()
    assert warning == "a warning"
    assert message.startswith(f"mtljax: {line}")
    assert message.endswith(REMEDY)


def test_gloo_is_not_a_stack_trace(tmp_path):
    code = "print(\"terminate called after throwing an instance of 'gloo::X'\", file=sys.stderr)"
    status, _, err = finish(supervised(tmp_path, f"{code}; sys.stderr.flush(); os.abort()"))
    assert (status, len(err.splitlines())) == (LOST, 2)


@pytest.mark.parametrize("status", [0, 1, 2, LOST, 143])
def test_other_statuses_and_lines_are_those_of_the_child(status, tmp_path):
    code = f"print('mtljax: wrong', file=sys.stderr); sys.exit({status})"
    assert finish(supervised(tmp_path, code)) == (status, "", "a warning\nmtljax: wrong\n")


def test_an_abort_for_another_reason_keeps_its_output(tmp_path):
    status, _, err = finish(supervised(tmp_path, "sys.stderr.write('why\\n'); os.abort()"))
    assert (status, err) == (128 + signal.SIGABRT, "a warning\nwhy\n")


def test_sigterm_reaches_the_child(tmp_path):
    code = "signal.signal(15, lambda *_: sys.exit(143)); print('up', flush=True); time.sleep(600)"
    parent = supervised(tmp_path, code)
    assert parent.stdout.readline() == "up\n"
    parent.terminate()
    assert finish(parent)[0] == 143


def test_a_killed_child_is_reported(tmp_path):
    status, _, err = finish(supervised(tmp_path, "os.kill(os.getpid(), 9)"))
    assert status == 137
    assert "killed by SIGKILL" in err


def test_only_a_distributed_run_without_a_parent_needs_one(monkeypatch):
    monkeypatch.delenv(PARENT, raising=False)
    assert is_needed(["--experiment", "digits", *HOW])
    assert not is_needed(["--experiment", "digits"])
    monkeypatch.setenv(PARENT, str(os.getppid()))
    assert not is_needed([*HOW])
    monkeypatch.setenv(PARENT, "1")  # inherited from a process above
    assert is_needed([*HOW])
