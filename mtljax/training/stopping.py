"""Early end of training: on SIGTERM, with the state saved, or because training has failed."""

import contextlib
import signal
from collections.abc import Callable, Iterator

import jax
import numpy as np


class Stopped(Exception):
    """Training ended early, with a message for the user and the program's exit status."""

    def __init__(self, message: str, status: int = 1):
        super().__init__(message)
        self.status = status


@contextlib.contextmanager
def stop_signal() -> Iterator[Callable[[], bool]]:
    """Records SIGTERM instead of ending the process, so that the loop can save.

    Yields a function that returns True if any process received it; all processes must call it at
    the same step.
    """
    signals: list[int] = []

    def received() -> bool:
        if jax.process_count() == 1:
            return bool(signals)
        from jax.experimental.multihost_utils import process_allgather

        return bool(np.any(process_allgather(np.asarray(bool(signals)))))

    with contextlib.ExitStack() as stack:
        with contextlib.suppress(ValueError):  # Python allows handlers in the main thread only
            previous = signal.signal(signal.SIGTERM, lambda number, frame: signals.append(number))
            stack.callback(signal.signal, signal.SIGTERM, previous)
        yield received
