"""Memory management of a process: how often Python looks for unreachable cycles of objects."""

import atexit
import gc

COLLECT_AFTER = 50_000
"""Number of new objects after which Python's garbage collector runs."""


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
