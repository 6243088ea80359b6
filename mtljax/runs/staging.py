"""Run folders in buckets: a local copy, from which what changes is uploaded.

A bucket has no append, no rename and no lock, so that a run cannot be written there directly. What
is uploaded is, at any time, what a run that was killed leaves behind: first its records, then
complete checkpoints, then its result; then what it has deleted is deleted.
"""

import contextlib
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import filelock

from mtljax.runs.bucket import Bucket
from mtljax.runs.bucket_copy import Changed, LocalCopy
from mtljax.runs.bucket_lock import BucketLock
from mtljax.utils.terminal import print_line
from mtljax.utils.text import first_line
from mtljax.utils.urls import url_of

INTERVAL = 5.0
"""Seconds between two looks at what has changed."""


_open_copies: dict[Path, LocalCopy] = {}
"""Copies that this process writes."""


class _Mirror:
    """Thread that uploads what changes in a copy."""

    def __init__(self, copy: LocalCopy, lock: BucketLock, url: str):
        self._copy, self._lock, self._url = copy, lock, url
        self._ended, self._is_late = threading.Event(), False
        self._thread = threading.Thread(target=self._run, daemon=True, name="upload")
        self._thread.start()

    def _run(self) -> None:
        while not self._ended.wait(INTERVAL) and not self._lock.is_lost:
            try:
                self._copy.push(deletes=True)
                self._is_late = False
            except Changed:
                continue
            except Exception as error:  # of any file system
                if not self._is_late:
                    print_line(f"warning: {self._url}: {_reason(error)}; tried again later")
                self._is_late = True

    def end(self) -> None:
        """Ends the thread, after the upload that it is doing."""
        self._ended.set()
        self._thread.join()


@contextlib.contextmanager
def staged(url: str, *, writes: bool = True) -> Iterator[Path]:
    """Context with a local copy of a folder at a URL.

    What changes in it is uploaded: while the context lasts if `writes`, which locks the URL until
    the end and then deletes the copy; else at the end. If this process is killed, what was uploaded
    until then can be resumed on any machine, and the copy on this one.

    Args:
      url: URL of a file system that fsspec knows, such as `s3://bucket/run`.
      writes: True to write a run or a comparison, False to read one.

    Raises:
      ValueError: The URL cannot be used, another run is writing there, or there is nothing to read.
      OSError: At the end, files could not be uploaded; they are kept in the copy.
    """
    bucket = Bucket(url)
    copy = LocalCopy(bucket, "work" if writes else "read")
    with _written(copy, bucket, url) if writes else _read(copy, url) as folder:
        yield folder


@contextlib.contextmanager
def _read(copy: LocalCopy, url: str) -> Iterator[Path]:
    with _usable(url), copy.locked(-1):
        if not copy.fetch():
            raise ValueError(f"no run folder {url}: there is no file below this URL")
        copy.save(None)
    try:
        yield copy.folder
    finally:
        with copy.locked(-1), _kept(copy, url):
            copy.push(deletes=False)


@contextlib.contextmanager
def _written(copy: LocalCopy, bucket: Bucket, url: str) -> Iterator[Path]:
    with contextlib.ExitStack() as stack:
        with _usable(url):
            stack.enter_context(copy.locked(0))
            lock = _open_to_write(copy, bucket)
        mirror = _Mirror(copy, lock, url)
        _open_copies[copy.folder] = copy
        try:
            yield copy.folder
        finally:
            del _open_copies[copy.folder]
            mirror.end()
            with _kept(copy, url):
                _finish(copy, lock, url)


def refresh(folder: Path) -> None:
    """Downloads what other processes have uploaded below a folder, if it is in a copy.

    Raises:
      OSError: The URL cannot be read.
    """
    for parent, copy in list(_open_copies.items()):
        if folder.is_relative_to(parent):
            copy.fetch(f"{folder.relative_to(parent).as_posix()}/")


def local_folder(path: Path | str) -> Path:
    """Returns a folder to be read: a copy of it if `path` is a URL.

    Raises:
      ValueError: The URL cannot be used, or nothing is there.
    """
    if (url := url_of(path)) is None:
        return Path(path).expanduser()
    with staged(url, writes=False) as folder:
        return folder


def _open_to_write(copy: LocalCopy, bucket: Bucket) -> BucketLock:
    """Locks a URL and brings its copy up to date."""
    lock = BucketLock(bucket)
    try:
        if not lock.acquire(former=copy.owner):
            kept = copy.clear()
            if kept is not None:
                print_line(
                    f"warning: another run has written to {bucket.url} since this machine did; "
                    f"what was not uploaded is kept in {kept}"
                )
            copy.fetch()
        copy.save(lock.owner)
    except BaseException:
        with contextlib.suppress(OSError):
            lock.release()
        raise
    return lock


def _finish(copy: LocalCopy, lock: BucketLock, url: str) -> None:
    """Uploads the last changes, then releases the lock and deletes the copy."""
    if lock.is_lost:
        raise ValueError(
            f"another run has taken over {url} while this process was stopped or cut off; what "
            f"this one has not uploaded is in {copy.place}"
        )
    try:
        copy.push(deletes=True)
    except BaseException:
        lock.leave()  # locked, so that the copy is used by the next process on this machine
        raise
    lock.release()
    copy.remove()


@contextlib.contextmanager
def _usable(url: str) -> Iterator[None]:
    """Turns errors of the file system before a run into a ValueError."""
    try:
        yield
    except filelock.Timeout:
        raise ValueError(f"another run is writing to {url}; choose another --workdir") from None
    except OSError as error:
        raise ValueError(f"{url}: {_reason(error)}") from None


@contextlib.contextmanager
def _kept(copy: LocalCopy, url: str) -> Iterator[None]:
    """Names the copy in errors of the last upload; if there was another error, prints a line."""
    has_failed = sys.exc_info()[0] is not None
    try:
        yield
    except (OSError, ValueError) as error:
        reason = _reason(error)
        if isinstance(error, OSError):
            reason += f"; all files are in {copy.place}, and the same command uploads them"
        if has_failed:
            print(f"mtljax: {url}: {reason}", file=sys.stderr)
        elif isinstance(error, OSError):
            raise OSError(error.errno, reason, url) from error
        else:
            raise


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or first_line(error)
