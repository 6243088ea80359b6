"""Stopping before the end: on SIGTERM, with everything saved, or because training went wrong."""

import contextlib
import signal
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np


class Stopped(Exception):
    """Training was asked to stop, or had to; the message is for the user.

    Attributes:
      status: The exit status that says so.
    """

    def __init__(self, message: str, status: int = 1):
        super().__init__(message)
        self.status = status


class StopSignal:
    """Whether SIGTERM came."""

    came_here = False

    def came(self) -> bool:
        """Whether it came to any process. All of them must ask at the same step."""
        if jax.process_count() == 1:
            return self.came_here
        from jax.experimental.multihost_utils import process_allgather

        return bool(np.any(process_allgather(np.asarray(self.came_here))))


@contextlib.contextmanager
def stop_signal() -> Iterator[StopSignal]:
    """Notes SIGTERM instead of dying of it, so that the loop can save; only in the main thread."""
    stop = StopSignal()

    def note(*_: Any) -> None:
        stop.came_here = True

    try:
        before = signal.signal(signal.SIGTERM, note)
    except ValueError:  # not the main thread: whoever runs us handles signals
        yield stop
        return
    try:
        yield stop
    finally:
        signal.signal(signal.SIGTERM, before)
