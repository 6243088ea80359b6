import os
import platform
import subprocess
import sys

import pytest

from mtljax.utils.memory import ALLOCATOR, COLLECT_AFTER

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


PROBE = """
import os, pathlib, sys
from mtljax.utils import memory
memory.SYSTEM_SETTING = pathlib.Path("setting")
memory.restart_with_allocator("probe")
print(os.environ.get("GLIBC_TUNABLES"), *sys.argv[1:])
"""


@pytest.fixture
def probe(tmp_path):
    """Function that runs a module that wants the allocator, and returns what it prints."""
    (tmp_path / "probe.py").write_text(PROBE)

    def run(*command: str, setting: str = "always [madvise] never", **environment: str) -> str:
        (tmp_path / "setting").write_text(setting)
        names = {k: x for k, x in os.environ.items() if "MALLOC" not in k and k != "GLIBC_TUNABLES"}
        names["PYTHONPATH"] = os.pathsep.join([str(tmp_path), *sys.path])
        done = subprocess.run(
            [sys.executable, *command],
            check=True,
            capture_output=True,
            text=True,
            env=names | environment,
            cwd=tmp_path,
        )
        return done.stdout.strip()

    return run


def has_new_glibc() -> bool:
    name, version = platform.libc_ver()
    return name == "glibc" and tuple(map(int, version.split("."))) >= (2, 35)


@pytest.mark.skipif(not has_new_glibc(), reason="a setting of glibc 2.35")
def test_program_restarts_with_the_allocator_and_its_arguments(probe):
    assert probe("-m", "probe", "a b", "--c") == f"{ALLOCATOR} a b --c"


def test_program_does_not_restart_against_the_settings_of_user_or_system(probe):
    assert probe("-m", "probe", GLIBC_TUNABLES="glibc.malloc.top_pad=9") == "glibc.malloc.top_pad=9"
    assert probe("-m", "probe", MALLOC_ARENA_MAX="4") == "None"
    assert probe("-m", "probe", setting="always madvise [never]") == "None"


def test_other_programs_do_not_restart(probe):
    assert probe("probe.py") == "None"
    assert probe("-c", "import probe", "probe") == "None probe"
