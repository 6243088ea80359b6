"""Lock of a run folder, held by the process that writes the run."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import filelock
import jax

from mtljax.utils.locks import acquire_lock
from mtljax.utils.peers import HEARTBEAT, SLACK
from mtljax.utils.terminal import phase

LOCK = ".lock"
"""File in the run folder; it remains if the process that holds it is killed."""

SECONDS = HEARTBEAT + SLACK
"""Seconds to wait for the lock of a run of several processes: the one that has it may be about to
notice that another one was lost."""


def lock_folder(path: Path) -> filelock.BaseFileLock | None:
    """Locks a run folder as `acquire_lock` does."""
    try:
        return acquire_lock(path / LOCK)
    except filelock.Timeout:
        if jax.process_count() == 1:
            raise
    with phase(f"waiting for another run that writes to {path}"):
        return acquire_lock(path / LOCK, SECONDS)


@contextlib.contextmanager
def writing_to(path: Path) -> Iterator[None]:
    """Context that raises ValueError, in one line, if a run folder cannot be locked or written."""
    try:
        yield
    except filelock.Timeout:
        raise ValueError(f"another run is writing to {path}; choose another --workdir") from None
    except OSError as error:
        raise ValueError(
            f"cannot write to {path}: {error.strerror}; choose another --workdir"
        ) from None
