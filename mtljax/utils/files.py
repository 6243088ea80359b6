"""Atomic writing of files, and strict JSON: NaN and infinity are written as null."""

import contextlib
import json
import math
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

PART = ".part"
"""Suffix of a file that is being written."""


def user_cache() -> Path:
    """Returns the user's folder of what can be computed again; it may not exist."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "mtljax"


def check_output(path: Path) -> None:
    """Raises ValueError, before a long computation, if its result cannot be written to a file."""
    folder = path.parent
    if path.is_dir():
        raise ValueError(f"cannot write to {path}: it is a folder; --output names a file")
    if not folder.is_dir():
        raise ValueError(f"cannot write to {path}: there is no folder {folder}; create it first")
    if not os.access(path if path.exists() else folder, os.W_OK):
        raise ValueError(f"cannot write to {path}: permission denied; --output names another file")


def write_bytes(path: Path, data: bytes, *, sync: bool = False) -> None:
    """Writes a file atomically; if `sync`, also waits until it is on the disk."""
    part = path.with_name(path.name + PART)
    part.unlink(missing_ok=True)
    try:
        with _naming(path), part.open("xb") as file:  # never through a link that somebody put there
            file.write(data)
            if sync:
                file.flush()
                os.fsync(file.fileno())
    except OSError:
        with contextlib.suppress(OSError):
            part.unlink()
        raise
    os.replace(part, path)


def write_text(path: Path, text: str) -> None:
    """Writes a UTF-8 text file atomically."""
    write_bytes(path, text.encode())


def append_text(path: Path, text: str) -> None:
    """Appends to a UTF-8 text file."""
    with _naming(path), path.open("a", encoding="utf-8") as file:
        file.write(text)


@contextlib.contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Adds the path to an OSError without one, as a full disk raises."""
    try:
        yield
    except OSError as error:
        if error.filename is not None:
            raise
        raise OSError(error.errno, error.strerror, str(path)) from None


def write_json(path: Path, value: Any) -> None:
    """Writes a JSON file atomically."""
    write_text(path, json_text(value, indent=2))


def json_text(value: Any, indent: int | None = None) -> str:
    """Returns JSON with a newline at the end, and null for NaN and infinity."""
    return json.dumps(null_for_nan(value), indent=indent, allow_nan=False) + "\n"


def null_for_nan(value: Any) -> Any:
    """Returns nested JSON with None for every float that is not finite."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return _map(null_for_nan, value)


def nan_for_null(value: Any) -> Any:
    """Returns nested JSON with NaN for every None."""
    return math.nan if value is None else _map(nan_for_null, value)


def _map(function: Callable[[Any], Any], value: Any) -> Any:
    """Applies a function to the items of a container; tuples become lists, leaves are unchanged."""
    if isinstance(value, dict):
        return {key: function(inner) for key, inner in value.items()}
    return [function(inner) for inner in value] if isinstance(value, (list, tuple)) else value
