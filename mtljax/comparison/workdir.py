"""Output folders of comparisons, fronts, groupings and searches."""

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path

from mtljax.runs.lock import LOCK, writing_to
from mtljax.utils.files import PART
from mtljax.utils.locks import holding_lock
from mtljax.utils.urls import require_local

TABLES = {"comparison": "results.csv", "front": "hypervolume.csv", "search": "trials.csv"}
"""Kind of folder -> table in it; all have run folders in the same place."""


def check_workdir(path: Path, marker: str, kind: str) -> None:
    """Raises ValueError unless a local folder is missing, empty, or has the subfolder `marker`.

    `kind` names, for the message, the kind of folder that contains the marker.
    """
    require_local(path)
    for other, table_of_other in TABLES.items():
        if other != kind and (path / table_of_other).exists():
            raise ValueError(f"{path} is a {other} folder, not a {kind}; choose another --workdir")
    if path.exists() and not path.is_dir():
        raise ValueError(f"{path} is a file, not a folder; choose another --workdir")
    if not path.is_dir() or (path / marker).is_dir():
        return
    if any(not inside.name.endswith((PART, LOCK)) for inside in path.iterdir()):
        raise ValueError(f"{path} is not empty and not a {kind} folder; choose another --workdir")


@contextlib.contextmanager
def locked_workdir(path: Path, marker: str, kind: str) -> Iterator[None]:
    """Context in which no other process writes to an output folder, except workers of this one.

    The lock is in the folder; workers lock the run folders that they write. New folders are removed
    if nothing is written to them.

    Raises:
      ValueError: `check_workdir` refuses the folder, it cannot be written, or it is in use.
    """
    check_workdir(path, marker, kind)
    created = [folder for folder in (path, *path.parents) if not folder.exists()]
    with contextlib.ExitStack() as stack:
        with writing_to(path):
            path.mkdir(parents=True, exist_ok=True)
            stack.callback(_remove_empty, created)  # after the lock in it
            stack.enter_context(holding_lock(path / LOCK))
        check_workdir(path, marker, kind)  # another process may have written to it meanwhile
        yield


def _remove_empty(folders: Sequence[Path]) -> None:
    with contextlib.suppress(OSError):  # one is not empty
        for folder in folders:
            folder.rmdir()
