"""The lock of a run folder: one run at a time, and none of a process that was killed."""

import signal
import subprocess
import sys

import pytest

from mtljax.config import Data, Experiment
from mtljax.runs.folder import LOCK, RunFolder
from mtljax.tasks import Regression

EXPERIMENT = Experiment(name="test", tasks=(Regression(name="size"),), data=Data(source="digits"))
HOLD = """
import sys, time
import filelock
lock = filelock.FileLock(sys.argv[1])
lock.acquire(timeout=0)
print("locked", flush=True)
time.sleep(600)
"""


def test_a_folder_is_locked_while_it_is_open_and_nothing_stays(tmp_path):
    locked = pytest.raises(ValueError, match=f"another run is writing to {tmp_path}")
    with RunFolder(tmp_path, EXPERIMENT), locked:
        RunFolder(tmp_path, EXPERIMENT)
    assert {path.name for path in tmp_path.iterdir()} == {"config.json"}
    with RunFolder(tmp_path, EXPERIMENT):
        pass


def test_the_lock_of_a_killed_process_is_free(tmp_path):
    command = [sys.executable, "-c", HOLD, str(tmp_path / LOCK)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout.readline() == "locked\n"
            with pytest.raises(ValueError, match="another run is writing"):
                RunFolder(tmp_path, EXPERIMENT)
        finally:
            process.send_signal(signal.SIGKILL)
            process.wait()
    assert {path.name for path in tmp_path.iterdir()} == {LOCK}  # nothing was written
    with RunFolder(tmp_path, EXPERIMENT):
        pass
    assert not (tmp_path / LOCK).exists()
