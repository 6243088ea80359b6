"""Hashes of what examples depend on: files, settings, and the code of tasks."""

import dataclasses
import functools
import hashlib
import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

import mtljax
from mtljax.data.files.encoded import EncodedImage
from mtljax.tasks import Task


def fingerprint(*values: Any) -> str:
    """Returns a hash of nested values. A file counts by its path, length and time of change.

    Raises:
      TypeError: A value has no such hash.
      OSError: A file does not exist.
    """
    digest = hashlib.sha256(mtljax.__version__.encode())
    for value in values:
        _add(digest, value)
    return digest.hexdigest()[:32]


def _add(digest: Any, value: Any) -> None:
    """Adds a value, with its type and length, so that no two values have the same bytes."""
    if value is None or isinstance(value, str | bytes | int | float):
        text = repr(value).encode()
        digest.update(f"{type(value).__name__} {len(text)} ".encode() + text)
    elif isinstance(value, Path):
        stat = value.stat()
        _add(digest, ("file", str(value.absolute()), stat.st_mtime_ns, stat.st_size))
    elif isinstance(value, EncodedImage):
        _add(digest, (value.table, value.column, value.group, value.index))
    elif isinstance(value, np.ndarray | np.generic) and value.dtype != object:
        digest.update(f"{value.dtype} {value.shape} ".encode() + value.tobytes())
    elif isinstance(value, Mapping):
        _add(digest, tuple(value.items()))
    elif isinstance(value, tuple | list):
        digest.update(f"{type(value).__name__} {len(value)} ".encode())
        for item in value:
            _add(digest, item)
    elif isinstance(value, Task):
        _add(digest, (_code(type(value)), _fields(value)))
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        _add(digest, (type(value).__qualname__, _fields(value)))
    else:
        raise TypeError(f"{type(value).__name__} has no fingerprint")


def _fields(value: Any) -> dict[str, Any]:
    return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}


@functools.cache
def _code(cls: type) -> tuple[str, ...]:
    """Returns the class's name and the source files of it and its bases, which may change.

    Raises:
      TypeError, OSError: The class was defined in a notebook or a shell.
    """
    files = {inspect.getfile(base) for base in cls.__mro__ if issubclass(base, Task)}
    return (cls.__qualname__, *(Path(file).read_text(encoding="utf-8") for file in sorted(files)))
