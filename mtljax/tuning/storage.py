"""Storage of studies, a database or a journal file, and its errors in one line."""

import contextlib
import errno
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mtljax.utils.text import first_line

if TYPE_CHECKING:
    import optuna

SECONDS = 60
"""Time that SQLite waits for another process to write."""
FULL = (*map(os.strerror, (errno.ENOSPC, errno.EDQUOT)), "disk is full")
"""Parts of the messages of a full disk: the last one is SQLite's."""
UNWRITABLE = (*FULL, *map(os.strerror, (errno.EROFS, errno.EIO)))
"""Parts of the messages of a disk that nothing can be written to."""
RESUME = "run the same command to resume; no finished trial is lost"
"""What to do after the storage was repaired, for messages."""


class StorageError(ValueError):
    """The storage of a study cannot be read or written; the reason is not a trial's."""


def open_storage(optuna: Any, storage: str) -> "optuna.storages.BaseStorage":
    """Opens the URL of a database, or the path of a journal file."""
    storages = optuna.storages
    if "://" not in storage:
        return storages.JournalStorage(storages.journal.JournalFileBackend(storage))
    wait = {"connect_args": {"timeout": SECONDS}} if storage.startswith("sqlite") else {}
    return storages.RDBStorage(storage, engine_kwargs=wait)


def is_unwritable(error: BaseException) -> bool:
    """Returns True if a file could not be written because of the disk."""
    return any(part in str(error) for part in UNWRITABLE)


@contextlib.contextmanager
def storage_errors(storage: str) -> Iterator[None]:
    """Context that turns errors of a storage into one line.

    Raises:
      StorageError: The storage cannot be used.
      OSError: The disk is full.
      ValueError: As it was raised.
    """
    try:
        yield
    except Exception as error:
        if isinstance(error, ValueError) and not isinstance(error, json.JSONDecodeError):
            raise
        raise _explained(storage, error) from error


def _explained(storage: str, error: Exception) -> Exception:
    # Optuna hides the error of SQLAlchemy, which adds the statement to that of the driver.
    cause = error.__cause__ or error
    reason = first_line(getattr(cause, "orig", None) or cause)
    name = re.sub(r"(://[^/@]*):[^/@]*@", r"\1:***@", storage)
    if any(part in reason for part in FULL):
        return OSError(errno.ENOSPC, f"{os.strerror(errno.ENOSPC)}; free some, then {RESUME}", name)
    path = Path(storage.removeprefix("sqlite:///"))
    remedy = f"make it accessible, then {RESUME}"
    if "locked" in reason:
        remedy = f"end the program that has locked it, then {RESUME}"
    elif "://" not in str(path) and not path.exists():
        reason = "the file was deleted or moved"
        remedy = "restore it, or run the same command to train its trials again"
    elif isinstance(error, json.JSONDecodeError) or "not a database" in reason:
        remedy = "restore a copy of it, or choose another --workdir"
    return StorageError(f"the storage {name} of the study cannot be used: {reason}; {remedy}")
