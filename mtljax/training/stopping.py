"""Early end of training: on SIGTERM, with the state saved, or because training has failed."""

import contextlib
import signal
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np


class Stopped(Exception):
    """Training ended early; the message is for the user.

    Attributes:
      status: Exit status of the program.
    """

    def __init__(self, message: str, status: int = 1):
        super().__init__(message)
        self.status = status


class StopSignal:
    """Record of SIGTERM."""

    received_here = False

    def received(self) -> bool:
        """Returns True if any process received it; all processes must ask at the same step."""
        if jax.process_count() == 1:
            return self.received_here
        from jax.experimental.multihost_utils import process_allgather

        return bool(np.any(process_allgather(np.asarray(self.received_here))))


@contextlib.contextmanager
def stop_signal() -> Iterator[StopSignal]:
    """Records SIGTERM instead of ending the process, so that the loop can save.

    Signals are not recorded outside the main thread, which Python requires for handlers.
    """
    stop = StopSignal()

    def record(*_: Any) -> None:
        stop.received_here = True

    try:
        previous = signal.signal(signal.SIGTERM, record)
    except ValueError:
        yield stop
        return
    try:
        yield stop
    finally:
        signal.signal(signal.SIGTERM, previous)
