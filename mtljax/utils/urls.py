"""URLs of buckets and servers in place of folders, and the folders that hold copies of them."""

import os
import re
from pathlib import Path

_URL = re.compile(r"[a-z][a-z0-9+.-]+:/+(?=[^/])")

_copies: dict[str, str] = {}
"""Path of a local copy -> its URL."""


def url_of(path: Path | str) -> str | None:
    """Returns the URL that a text or path is, None for others; a path has lost a slash of its URL.

    Example:
      >>> url_of(Path("s3://bucket/run")), url_of("file:///tmp/run"), url_of("runs/digits")
      ('s3://bucket/run', 'file:///tmp/run', None)
    """
    match = _URL.match(str(path))
    if match is None:
        return None
    protocol = match[0].partition(":")[0]
    root = "/" if protocol in ("file", "local") else ""
    return f"{protocol}://{root}{str(path)[match.end() :]}".rstrip("/")


def register_copy(folder: Path, url: str) -> None:
    """Records that a folder holds a copy of a URL, for `named`."""
    _copies[str(folder)] = url


def named(text: object) -> str:
    """Returns a text in which folders that hold a copy are named by their URL."""
    text = str(text)
    for folder, url in _copies.items():
        text = re.sub(re.escape(folder) + rf"(?![^\s{re.escape(os.sep)}:;,'\")])", url, text)
    return text


def url_below(path: Path) -> str | None:
    """Returns the URL of a folder in a local copy; None for other folders."""
    url = named(path)
    return None if url == str(path) else url


def require_local(path: Path) -> None:
    """Raises ValueError for the URL of a bucket or server."""
    if (url := url_of(path)) is not None:
        raise ValueError(
            f"{url} is a URL, not a folder: use it inside of `with "
            f"mtljax.runs.staging.staged({url!r}) as folder`, or on the command line"
        )
