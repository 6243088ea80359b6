"""No process that a test starts is left running, however the test ends."""

import contextlib
import os
import signal
import sys
from pathlib import Path

import pytest
from support import cli as cli_harness
from support.cli import run, wait_until

TEST = """
import os, signal
from support.cli import finish, launch
import pytest

def start():
    process = launch(["sh", "-c", "sleep 900 & echo $!; wait"])
    with open("started", "w") as file:
        file.write(f"{{process.pid}} {{process.stdout.readline()}}")
    return process

@pytest.fixture(scope="module")
def fails():
    start()
    raise ValueError

def test_it({fixtures}):
    process = start()
    {end}
"""


def is_alive(process):
    state = run(["ps", "-o", "stat=", "-p", process]).stdout.strip()
    return bool(state) and not state.startswith("Z")


@pytest.mark.parametrize(
    ("end", "fixtures", "status"),
    [
        ("pass", "", 0),
        ("raise ValueError", "", 1),
        ("finish(process, timeout=0.01)", "", 1),
        ("process.kill(); process.wait()", "", 0),
        ("pass", "fails", 1),
        ("raise KeyboardInterrupt", "", 2),
        ("os.kill(os.getpid(), signal.SIGTERM)", "", -signal.SIGTERM),
        ("os.kill(os.getpid(), signal.SIGKILL)", "", -signal.SIGKILL),
    ],
)
def test_children_and_grandchildren_end_with_their_test(end, fixtures, status, tmp_path):
    (tmp_path / "test_it.py").write_text(TEST.format(end=end, fixtures=fixtures))
    (tmp_path / "pytest.ini").write_text("[pytest]\n")  # or pytest searches the folders above
    quick = ["-p", "support.cli", "-p", "no:cacheprovider", "-p", "no:xdist"]
    environment = {**os.environ, "PYTHONPATH": str(Path(cli_harness.__file__).parents[1])}
    command = [sys.executable, "-m", "pytest", *quick, "--rootdir", tmp_path, "test_it.py"]
    done = run(command, cwd=tmp_path, env=environment)
    started = [int(word) for word in (tmp_path / "started").read_text().split()]
    try:
        assert done.returncode == status, done.stdout + done.stderr
        assert len(started) == 2
        wait_until(lambda: not any(map(is_alive, started)), timeout=60)  # usually at once
    finally:
        for process in started:
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)


def test_every_test_of_this_project_ends_so(pytestconfig):
    found = pytestconfig.pluginmanager.hook.pytest_runtest_protocol.get_hookimpls()
    assert cli_harness.pytest_runtest_protocol in [hook.function for hook in found]
