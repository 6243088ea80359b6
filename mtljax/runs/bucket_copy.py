"""Local copy of a folder in a bucket, and the exchange of files between the two.

A checkpoint is one file `STEP.tar` in the bucket, so that it is there completely or not at all.
"""

import contextlib
import hashlib
import os
import shutil
import tarfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath
from typing import Any

from mtljax.runs.bucket import Bucket
from mtljax.runs.checkpoints import FOLDER as CHECKPOINTS
from mtljax.runs.folder import RESULT
from mtljax.runs.lock import LOCK
from mtljax.runs.orbax_store import REPLACED
from mtljax.utils.bounded_reading import read_json
from mtljax.utils.files import PART, user_cache, write_json
from mtljax.utils.locks import holding_lock
from mtljax.utils.text import first_line
from mtljax.utils.urls import register_copy

TAR = ".tar"
"""Extension of a checkpoint in a bucket, which is one file there."""
TRIES = 5
"""Attempts to download files that a run is replacing at the same time."""


class Changed(OSError):
    """A checkpoint was deleted or replaced while it was read."""


class LocalCopy:
    """Copy of what is below a URL, with a record of what is equal on both sides.

    Attributes:
      folder: The copy.
      place: Folder that contains it, for messages in which `named` is not to replace it.
      owner: Owner of the lock under which it was written, if any.
    """

    def __init__(self, bucket: Bucket, kind: str):
        """Creates its place in the user's cache; `kind` separates readers and writers."""
        self._bucket = bucket
        key = hashlib.sha256(bucket.url.encode()).hexdigest()[:12]
        self.place = user_cache() / "folders" / f"{key}-{kind}"
        self.place.mkdir(parents=True, exist_ok=True)
        parts = [x for x in bucket.url.partition("://")[2].split("/") if x not in ("", ".", "..")]
        # Two of them: `group_names` identifies runs of a group by these.
        self.folder = self.place.joinpath(*parts[-2:] or ["run"])
        self._state_file = self.place / "state.json"
        self._upload_file = self.place / f"upload{PART}"
        self.owner: str | None = None
        self._busy = threading.Lock()
        self._files: dict[str, list[str | None]] = {}
        """Name in the bucket -> local signature, None while it is uploaded; and version there."""
        register_copy(self.folder, bucket.url)

    @contextlib.contextmanager
    def locked(self, timeout: float) -> Iterator[None]:
        """Context in which no other process of this machine changes the copy.

        Raises:
          filelock.Timeout: One does.
        """
        with holding_lock(self.place.with_name(self.place.name + LOCK), timeout):
            state: dict[str, Any] = {}
            with contextlib.suppress(OSError, ValueError):
                state = read_json(self._state_file)
            self.owner, self._files = state.get("owner"), state.get("files", {})
            yield

    def save(self, owner: str | None) -> None:
        """Records the owner, and that the copy is complete."""
        self.owner = owner
        write_json(self._state_file, {"owner": owner, "files": self._files})

    def clear(self) -> Path | None:
        """Empties the copy; if it has files that were not uploaded, returns where it is kept."""
        kept = None
        if self.owner is not None and self.folder.exists():
            items, _ = scan(self.folder)
            if any(self._files.get(name, [None])[0] != signature(items[name]) for name in items):
                kept = self.place / f"{self.folder.name}-{time.strftime('%Y%m%d-%H%M%S')}"
                self.folder.rename(kept)
        self._empty()
        return kept

    def remove(self) -> None:
        """Deletes the copy, all of which was uploaded."""
        self._empty()
        with contextlib.suppress(OSError):  # there is a folder that `clear` has kept
            for folder in (self.folder.parent, self.place):
                folder.rmdir()

    def _empty(self) -> None:
        self._state_file.unlink(missing_ok=True)  # first: without it, a copy is not complete
        self._upload_file.unlink(missing_ok=True)
        shutil.rmtree(self.folder, ignore_errors=True)
        self.owner, self._files = None, {}

    def fetch(self, below: str = "") -> bool:
        """Downloads what has changed in the bucket, inside of `locked`.

        Args:
          below: Start of the names to download.

        Returns:
          True if something is there.

        Raises:
          OSError: The bucket cannot be read.
          ValueError: A checkpoint is damaged.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        with self._busy:
            for _ in range(TRIES - 1):
                with contextlib.suppress(FileNotFoundError):  # deleted after it was listed
                    return self._fetch(below)
            return self._fetch(below)

    def _fetch(self, below: str) -> bool:
        versions = {
            name: version
            for name, version in self._bucket.versions(below).items()
            if not name.endswith((PART, LOCK)) and not {"..", "/"} & {*PurePosixPath(name).parts}
        }
        # A checkpoint that was uploaded as a folder, by another program, and then as a file.
        twice = tuple(name.removesuffix(TAR) + "/" for name in versions if _is_checkpoint(name))
        versions = {name: x for name, x in versions.items() if not name.startswith(twice)}
        known = {name for name in self._files if name.startswith(below)}
        for name in known - versions.keys():
            _delete(self._path(name))
            del self._files[name]
        todo = [
            name
            for name, version in versions.items()
            if self._files.get(name) != [signature(self._path(name)), version]
        ]
        with ThreadPoolExecutor(8) as pool:
            for name in pool.map(self._download, todo):
                self._files[name] = [signature(self._path(name)), versions[name]]
        return bool(versions)

    def _download(self, name: str) -> str:
        path = self._path(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        part, folder = path.with_name(path.name + TAR + PART), path.with_name(path.name + PART)
        self._bucket.download(name, part)
        _delete(path)
        if not _is_checkpoint(name):
            part.rename(path)
            return name
        _delete(folder)
        try:
            with tarfile.open(part) as archive:
                archive.extractall(folder, filter="data")
        except tarfile.TarError as error:
            raise ValueError(f"{self._bucket.url}/{name} is damaged: {first_line(error)}") from None
        part.unlink()
        folder.rename(path)
        return name

    def _path(self, name: str) -> Path:
        return self.folder / (name.removesuffix(TAR) if _is_checkpoint(name) else name)

    def push(self, *, deletes: bool) -> None:
        """Uploads what has changed, inside of `locked`.

        Args:
          deletes: Upload checkpoints, too, and delete what was deleted.

        Raises:
          OSError: The bucket cannot be written.
        """
        with self._busy:
            self._push(deletes)

    def _push(self, deletes: bool) -> None:
        items, retained = scan(self.folder)
        signatures = {name: signature(path) for name, path in items.items()}
        changed = [n for n, new in signatures.items() if self._files.get(n, [None])[0] != new]
        gone = self._files.keys() - items.keys() - retained
        if not deletes:
            changed = [name for name in changed if not _is_checkpoint(name)]
        if not deletes or not self._state_file.exists():  # not if somebody clears the cache
            gone = set()
        results = {name for name in {*changed, *gone} if PurePosixPath(name).name == RESULT}
        if not changed and not gone:
            return
        # If this is interrupted, they are uploaded again.
        self._files |= {name: [None, None] for name in changed}
        self.save(self.owner)
        checkpoints = set(filter(_is_checkpoint, changed))
        for name in set(changed) - checkpoints - results:
            self._upload(name, items[name], signatures[name])
        for name in gone & results:  # of a run that is continued, before its next checkpoint
            self._delete(name)
        for name in [*checkpoints, *(results - gone)]:
            self._upload(name, items[name], signatures[name])
        for name in gone - results:
            self._delete(name)
        self.save(self.owner)

    def _upload(self, name: str, path: Path, before: str | None) -> None:
        part = self._upload_file
        try:
            if _is_checkpoint(name):
                with tarfile.open(part, "w") as archive:
                    archive.add(path, ".")
            else:
                shutil.copyfile(path, part)
        except FileNotFoundError:
            raise Changed from None
        if _is_checkpoint(name) and signature(path) != before:
            raise Changed
        self._bucket.upload(part, name)
        part.unlink()
        self._files[name] = [before, None]

    def _delete(self, name: str) -> None:
        self._bucket.delete(name)
        del self._files[name]


def scan(folder: Path) -> tuple[dict[str, Path], set[str]]:
    """Lists what belongs into the bucket.

    Returns:
      ({name in the bucket: file, or folder of a complete checkpoint}, names of checkpoints that are
      being replaced).
    """
    items, retained = {}, set()
    for parent, folders, files in os.walk(folder):
        here = Path(parent)
        prefix = here.relative_to(folder).as_posix().removeprefix(".")
        prefix += "/" * bool(prefix)
        for name in list(folders) if here.name == CHECKPOINTS else ():
            folders.remove(name)
            if name.isdecimal():
                items[f"{prefix}{name}{TAR}"] = here / name
            elif name.endswith(REPLACED):
                retained.add(f"{prefix}{name.removesuffix(REPLACED)}{TAR}")
        folders[:] = [name for name in folders if not name.endswith(PART)]
        names = [name for name in files if not name.endswith((PART, LOCK))]
        items |= {f"{prefix}{name}": here / name for name in names}
    return items, retained


def signature(path: Path) -> str | None:
    """Returns what changes if a file, or one in a folder, is changed; None if it is missing."""
    try:
        paths = sorted(path.rglob("*")) if path.is_dir() else [path]
        stats = [(str(p.relative_to(path)), p.stat()) for p in paths]
    except FileNotFoundError:
        return None
    text = repr([(name, stat.st_size, stat.st_mtime_ns, stat.st_ino) for name, stat in stats])
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _is_checkpoint(name: str) -> bool:
    path = PurePosixPath(name)
    return path.suffix == TAR and path.stem.isdecimal() and path.parent.name == CHECKPOINTS


def _delete(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
