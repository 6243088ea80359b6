"""Python files that this user has chosen to execute.

Loading a run must not execute a file only because a configuration names it. A file is trusted if
this user trained with it on this machine, or if `MTLJAX_TRUSTED_CODE` lists it.
"""

import contextlib
import hashlib
import os
from pathlib import Path

from mtljax.utils.bounded_reading import read_bytes, read_json
from mtljax.utils.files import write_json

VARIABLE = "MTLJAX_TRUSTED_CODE"
"""Environment variable with trusted files, separated like PATH."""


def digest(path: Path) -> str:
    """Returns the SHA-256 of a file as hexadecimal text."""
    return hashlib.sha256(read_bytes(path)).hexdigest()


def trust(path: Path) -> bool:
    """Records that this user executes a file; returns False if the home folder is read-only."""
    try:
        file, trusted = _store(), _trusted()
        if trusted.get(str(path)) != (sha256 := digest(path)):
            file.parent.mkdir(parents=True, exist_ok=True)
            write_json(file, {**trusted, str(path): sha256})
    except (OSError, RuntimeError):
        return False
    return True


def find_trusted(path: Path, sha256: str | None) -> Path | None:
    """Returns the trusted file at `path`, or, if there is no file, a trusted one with its content.

    Args:
      path: Recorded path.
      sha256: Recorded content. A file that MTLJAX_TRUSTED_CODE lists needs only the same name.

    Returns:
      None if there is no trusted file.
    """
    with contextlib.suppress(OSError, RuntimeError, ValueError):
        names = filter(None, os.environ.get(VARIABLE, "").split(os.pathsep))
        listed = [Path(name).expanduser().resolve() for name in names]
        stored = _trusted()
        if path.is_file():
            return path if path in listed or str(path) in stored else None
        named = [other for other in listed if other.name == path.name and other.is_file()]
        if named:
            return named[0]
        moved = [*listed, *(Path(other) for other in stored if stored[other] == sha256)]
        return next((other for other in moved if other.is_file() and digest(other) == sha256), None)
    return None


def _store() -> Path:
    """Path of the list of files that this user trained with."""
    state = os.environ.get("XDG_STATE_HOME")
    folder = Path(state) if state else Path.home() / ".local" / "state"
    return folder / "mtljax" / "trusted_code.json"


def _trusted() -> dict[str, str]:
    """Returns {path: SHA-256} of the files that this user trained with."""
    try:
        stored = read_json(_store())
    except (OSError, RuntimeError, ValueError):
        return {}
    return stored if isinstance(stored, dict) else {}
