"""Files below a URL, in a bucket or on any other file system of fsspec."""

import contextlib
import errno
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from mtljax.utils.files import PART
from mtljax.utils.text import first_line

T = TypeVar("T")

WAITS = (1.0, 4.0, 10.0)
"""Seconds before each repetition of an operation that has failed."""
FINAL = (FileNotFoundError, FileExistsError, PermissionError, NotImplementedError)
"""Errors that repetition does not help."""
VERSION = ("ETag", "etag", "generation", "mtime", "last_modified", "created", "size")
"""Fields of an entry, whose names depend on the file system, that change with the content."""


class Bucket:
    """Files below a URL. An upload replaces a file completely or not at all."""

    def __init__(self, url: str):
        """Opens the file system.

        Raises:
          ValueError: Its package is missing, or the protocol is unknown.
        """
        from fsspec.core import url_to_fs  # takes a tenth of a second
        from fsspec.registry import known_implementations

        self.url = url.rstrip("/")
        protocol = url.partition("://")[0]
        try:
            self._fs, root = url_to_fs(self.url)
        except ImportError as error:
            package = known_implementations[protocol]["class"].partition(".")[0]
            remedy = first_line(error) if package == "fsspec" else f"pip install {package}"
            raise ValueError(f"{url} needs another package: {remedy}") from None
        except Exception as error:  # each file system has its own types
            raise ValueError(f"{url} cannot be opened: {first_line(error)}") from None
        self._root = root.rstrip("/") + "/"

    def versions(self, below: str = "") -> dict[str, str]:
        """Returns {name: version} of all files whose names start with `below`, a folder and "/".

        A version changes with the content.
        """
        with self._explained("list"):
            return self._again(lambda: self._versions(below))

    def _versions(self, below: str) -> dict[str, str]:
        self._fs.invalidate_cache()
        try:
            found = self._fs.find(self._root + below, detail=True)
        except FileNotFoundError:
            return {}
        version = lambda entry: " ".join(str(entry.get(key)) for key in VERSION)
        return {
            path.removeprefix(self._root): version(entry)
            for path, entry in found.items()
            if path.startswith(self._root) and not path.endswith("/")
        }

    def download(self, name: str, target: Path) -> None:
        """Copies a file to a local one; raises FileNotFoundError if it is not there any more."""
        with self._explained(f"read {name} of"):
            self._again(lambda: self._fs.get_file(self._root + name, str(target)))

    def upload(self, source: Path, name: str) -> None:
        """Copies a local file, which does not change meanwhile; replaces a file of this name."""
        with self._explained(f"write {name} to"):
            self._again(lambda: self._upload(str(source), self._root + name))

    def _upload(self, source: str, target: str) -> None:
        if self._fs.async_impl:  # object stores, which show an object when it is complete
            self._fs.put_file(source, target)
            return
        self._fs.makedirs(self._fs._parent(target), exist_ok=True)
        self._fs.put_file(source, target + PART)
        self._fs.mv(target + PART, target)

    def delete(self, name: str) -> None:
        """Deletes a file, if it is there."""
        with self._explained(f"delete {name} in"), contextlib.suppress(FileNotFoundError):
            self._again(lambda: self._fs.rm_file(self._root + name))

    def read(self, name: str) -> bytes | None:
        """Returns the content of a small file; None if there is none."""
        with self._explained(f"read {name} of"):
            try:
                self._fs.invalidate_cache()
                return self._again(lambda: self._fs.cat_file(self._root + name))
            except FileNotFoundError:
                return None

    def write(self, name: str, data: bytes, *, is_new: bool = False) -> None:
        """Writes a small file; if `is_new`, raises FileExistsError if there is one already."""
        with self._explained(f"write {name} to"):
            if not self._fs.async_impl:
                self._fs.makedirs(self._root, exist_ok=True)
            options = {"mode": "create"} if is_new else {}
            self._again(lambda: self._fs.pipe_file(self._root + name, data, **options))

    def _again(self, action: Callable[[], T]) -> T:
        for wait in WAITS:
            try:
                return action()
            except FINAL:
                raise
            except Exception:
                time.sleep(wait)
        return action()

    @contextlib.contextmanager
    def _explained(self, action: str) -> Iterator[None]:
        """Turns errors into an OSError with one line, except for files that are missing or there.

        Each file system has its own types of errors.
        """
        try:
            yield
        except (FileNotFoundError, FileExistsError):
            raise
        except Exception as error:
            reason: Any = getattr(error, "strerror", None) or first_line(error)
            if isinstance(error, NotImplementedError):
                reason = "its file system cannot do this"
            raise OSError(errno.EIO, f"cannot {action} this URL: {reason}", self.url) from error
