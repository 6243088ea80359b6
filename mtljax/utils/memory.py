"""Memory management of a process: size of its pages, and garbage collection."""

import atexit
import gc
import os
import sys
from pathlib import Path

COLLECT_AFTER = 50_000
"""Number of new objects after which Python's garbage collector runs."""

LARGE_PAGES = "glibc.malloc.hugetlb=1"
SYSTEM_SETTING = Path("/sys/kernel/mm/transparent_hugepage/enabled")
"""File in which Linux says whether it offers large pages: never, on request, or always."""


def restart_with_large_pages(module: str) -> None:
    """Restarts `python -m module` with large memory pages for its arrays, on Linux.

    A step on CPU maps large temporary arrays, whose pages the system provides at their first use.
    With pages of 2 MiB instead of 4 KiB, the step of a convolutional network takes up to 20 % less
    time. The allocator, that of glibc 2.35 or newer, reads this setting from the environment when
    the process starts, therefore the restart.

    No effect if the user has set up the allocator (`GLIBC_TUNABLES`, `MALLOC_...`), the system
    offers no large pages, or Python was started otherwise.
    """
    is_set_up = any(name.startswith(("GLIBC_TUNABLES", "MALLOC_")) for name in os.environ)
    is_module = ("-m", module) in zip(sys.orig_argv, sys.orig_argv[1:], strict=False)
    if is_module and not is_set_up and _has_large_pages():
        environment = os.environ | {"GLIBC_TUNABLES": LARGE_PAGES}
        os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], environment)


def _has_large_pages() -> bool:
    if sys.platform != "linux":
        return False
    try:
        setting = SYSTEM_SETTING.read_text()
        library, version = (os.confstr("CS_GNU_LIBC_VERSION") or "").split()
        major, minor = map(int, version.split(".")[:2])
    except (OSError, ValueError):
        return False
    return "[never]" not in setting and library == "glibc" and (major, minor) >= (2, 35)


def collect_garbage_less_often() -> None:
    """Runs Python's garbage collector less often, and not at all when the process ends.

    Imports and traces create many objects that stay, which the collector visits each time: about a
    fifth of the time of a short run. Arrays do not depend on it: their memory is released with the
    last reference.
    """
    first, *others = gc.get_threshold()
    if 0 < first < COLLECT_AFTER:  # 0 switches it off
        gc.set_threshold(COLLECT_AFTER, *others)
        atexit.register(gc.freeze)
