"""Locks between processes."""

import contextlib
import errno
from collections.abc import Iterator
from pathlib import Path

import filelock


def acquire_lock(path: Path, timeout: float = 0) -> filelock.BaseFileLock | None:
    """Locks a file; None where the file system has no locks.

    Args:
      timeout: Seconds to wait for another process; negative: as long as it takes.

    Raises:
      filelock.Timeout: Another process has the lock.
    """
    lock = filelock.FileLock(path, thread_local=False)
    try:
        lock.acquire(timeout=timeout)
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
def holding_lock(path: Path, timeout: float = 0) -> Iterator[None]:
    """Context in which a file is locked, as by `acquire_lock`."""
    lock = acquire_lock(path, timeout)
    try:
        yield
    finally:
        if lock is not None:
            release_lock(lock, path)
