"""Keeping other processes out of a folder while one writes to it."""

from pathlib import Path
from typing import IO


def lock(path: Path) -> IO[str]:
    """Opens a file and locks it for this process; the lock goes with the process, however it ends.

    Raises:
      BlockingIOError: Another process has it.
    """
    file = path.open()
    try:
        import fcntl
    except ImportError:  # Windows
        return file
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        raise
    except OSError:  # a file system without locks
        return file
    return file
