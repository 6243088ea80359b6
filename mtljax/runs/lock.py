"""Lock of a run folder, held by the process that writes the run."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import filelock

LOCK = ".lock"
"""File in the run folder; it remains if the process that holds it is killed."""


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
