"""Lock of a run folder, held by the process that writes the run."""

import contextlib
import errno
from collections.abc import Iterator
from pathlib import Path

import filelock

LOCK = ".lock"
"""File in the run folder; it remains if the process that holds it is killed."""


def acquire_lock(path: Path) -> filelock.BaseFileLock | None:
    """Locks a file; None where the file system has no locks."""
    lock = filelock.FileLock(path, thread_local=False)
    try:
        lock.acquire(timeout=0)
    except OSError as error:
        if error.errno not in (errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS):
            raise
        return None
    except NotImplementedError:
        return None
    return lock


def release_lock(lock: filelock.BaseFileLock, path: Path) -> None:
    """Removes and releases a lock."""
    # Removed while it is held: afterwards it may be another process's.
    with contextlib.suppress(OSError):  # Windows removes no open file; filelock does then
        path.unlink()
    lock.release()


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
