"""Timing of calls."""

import time


def timed(call, repeats):
    """Mean wall time of a call, in seconds."""
    start = time.perf_counter()
    for _ in range(repeats):
        call()
    return (time.perf_counter() - start) / repeats
