import subprocess
import sys

from mtljax.utils.memory import COLLECT_AFTER

SETTINGS = """
import gc
{before}
from mtljax.utils.memory import collect_garbage_less_often
collect_garbage_less_often()
print(gc.get_threshold()[0])
"""


def threshold(before: str) -> int:
    """Threshold of a new process after the call."""
    command = [sys.executable, "-c", SETTINGS.format(before=before)]
    return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def test_garbage_is_collected_less_often_but_not_never():
    assert threshold("gc.set_threshold(700, 10, 10)") == COLLECT_AFTER


def test_a_rarer_collection_and_none_stay():
    assert threshold("gc.set_threshold(10**6)") == 10**6
    assert threshold("gc.set_threshold(0)") == 0
