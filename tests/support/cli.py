"""A small experiment for tests of the command line, and every process that a test starts.

No process outlives its test, however the test ends: `pytest_runtest_protocol` kills what is left.
"""

import atexit
import contextlib
import functools
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

SMALL = (
    *("--experiment", "digits", "--trunk", "mlp:widths=(16,)", "--data.augment", "none"),
    *("--schedule", "constant"),
)
"""Trains in a moment. Its programs do not depend on the number of steps, so that tests share what
was compiled."""

TRAINED = (*SMALL, "--steps", "7", "--log-every", "2", "--eval-every", "3")
"""What the folder of the fixture `trained_run` was made with."""


LIMIT = 1200
"""Seconds that a process may take: at least ten times what the longest takes on an idle machine."""

_started = []
"""The processes of this test."""

_WATCH = """
import contextlib, os, signal, sys
groups = set()
for line in sys.stdin:
    change = groups.add if line[0] == "+" else groups.discard
    change(int(line[1:]))
for group in groups:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(group, signal.SIGKILL)
"""


@functools.cache
def _watcher():
    """A process that kills what runs when this process is killed: then its input ends."""
    watcher = subprocess.Popen(
        [sys.executable, "-I", "-S", "-c", _WATCH],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,  # Ctrl-C is for pytest
    )

    def end():
        kill_started()
        watcher.stdin.close()
        watcher.wait()

    atexit.register(end)
    return watcher


def _tell_watcher(sign, process):
    stdin = _watcher().stdin
    stdin.write(f"{sign}{process.pid}\n".encode())
    stdin.flush()


def launch(command, **settings):
    """Starts a command, the leader of a process group that is killed when the test ends.

    Its output goes to pipes, as text.
    """
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    _watcher()
    process = subprocess.Popen(
        [*map(str, command)], **{**pipes, **settings}, start_new_session=True
    )
    _started.append(process)
    _tell_watcher("+", process)
    return process


def kill_started():
    """Kills the process group of everything that was started, and waits for its leader.

    A group can outlive its leader, so those of finished processes are killed as well.
    """
    while _started:
        process = _started[-1]
        with contextlib.suppress(ProcessLookupError, PermissionError):  # macOS: of a zombie
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        for pipe in (process.stdin, process.stdout, process.stderr):
            if pipe is not None:
                with contextlib.suppress(OSError):  # what is still to be written
                    pipe.close()
        _tell_watcher("-", process)
        _started.pop()


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol():
    """Kills what a test and the fixtures set up for it left running; `conftest` imports this.

    A fixture would not do: it is not set up when one of a wider scope fails.
    """
    try:
        return (yield)
    finally:
        kill_started()


def start(*arguments, cache, devices=None, variables=None, **settings):
    """Starts the real command line in a process of its own, with more environment variables."""
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": os.environ.get("HOME", "/"),
        "PYTHONPATH": str(ROOT),
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": os.environ.get("XLA_FLAGS", ""),
        "MTLJAX_CACHE": str(cache),
        **(variables or {}),
    }
    if devices is not None:
        environment["JAX_NUM_CPU_DEVICES"] = str(devices)
    return launch([sys.executable, "-m", "mtljax.main", *arguments], env=environment, **settings)


def without_announcements(out):
    """The output of a command without the lines that say what it is doing."""
    begun = ("experiment ", "comparison of ", "grouping of ", "reading ", "examples: ")
    return "".join(line for line in out.splitlines(True) if not line.startswith(begun))


def finish(process, timeout=LIMIT, input=None):
    """Waits for a process and gives (exit status, stdout, stderr)."""
    out, err = process.communicate(input, timeout=timeout)
    return process.returncode, out, err


def run(command, timeout=LIMIT, input=None, **settings):
    """Runs a command to its end and gives what `subprocess.run` gives, always with the output."""
    if input is not None:
        settings["stdin"] = subprocess.PIPE
    process = launch(command, **settings)
    return subprocess.CompletedProcess(process.args, *finish(process, timeout, input))


def wait_until(reached, *processes, timeout=LIMIT):
    """Waits until `reached()` is true or one of the processes has ended."""
    end = time.monotonic() + timeout
    while not reached() and all(process.poll() is None for process in processes):
        if time.monotonic() > end:
            raise TimeoutError(f"nothing for {timeout} s")
        time.sleep(0.002)
