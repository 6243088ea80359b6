"""Timing of calls."""

import time


def timed(call, repeats):
    """Mean wall time of a call, in seconds."""
    start = time.perf_counter()
    for _ in range(repeats):
        call()
    return (time.perf_counter() - start) / repeats


def round_times(call, wait, seconds, rounds=5):
    """Returns the mean wall time of a call in each round, in seconds, after a warm-up.

    Args:
      call: Starts one step, possibly without waiting for its end.
      wait: Waits for all steps that were started.
      seconds: Approximate duration of all rounds together; a round has at least one call.
      rounds: Number of rounds.
    """

    def one_round(repeats):
        start = time.perf_counter()
        for _ in range(repeats):
            call()
        wait()
        return (time.perf_counter() - start) / repeats

    one_round(1)
    repeats = max(1, round(seconds / rounds / one_round(2)))
    return [one_round(repeats) for _ in range(rounds)]
