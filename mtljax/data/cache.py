"""Cache of decoded, resized examples in packs, shared by all runs of a user.

A pack is named by the hash of all that its content depends on, so that a changed file or setting
has another pack. It is written to a separate folder, which is then renamed: readers see complete
packs only. Of two runs that need the same pack, one waits for the other.
"""

import contextlib
import os
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import filelock

from mtljax.data.base import Example, Source, Split, first_usable, map_splits
from mtljax.data.lazy import LazySplit
from mtljax.data.packs import (
    CONTENT,
    IMAGE,
    Pack,
    PackedSplit,
    PackWriter,
    num_bytes,
    open_pack,
    structure_of,
)
from mtljax.data.problems import read_examples
from mtljax.data.sources.join import JoinedSplit
from mtljax.utils.files import user_cache
from mtljax.utils.locks import holding_lock
from mtljax.utils.terminal import announce, phase

GB = 10**9
"""Bytes of a gigabyte."""
PART = ".part-"
"""Prefix of folders that are being written."""


def cached_source(source: Source, limit: float, *, builds: bool) -> Source:
    """Returns a source that reads from packs what has some.

    Splits in memory stay as they are, and so do those that need more space than there is.

    Args:
      limit: Maximum size of the cache, in GB; the packs used longest ago are removed.
      builds: Write the packs that do not exist, which reads all examples; else they are not used.
    """
    cache = ExampleCache(user_cache() / "examples", int(limit * GB), builds)
    return map_splits(source, cache.packed)


class ExampleCache:
    """Folder of packs, as one source uses it."""

    def __init__(self, folder: Path, limit: int, builds: bool) -> None:
        self._folder, self._limit, self._builds = folder, limit, builds
        self._used: set[str] = set()

    def packed(self, split: Split) -> Split:
        """Returns a split that reads from packs, or the split itself."""
        if isinstance(split, JoinedSplit):
            return split.changed(self.packed)
        if not isinstance(split, LazySplit) or not len(split):
            return split
        identity = getattr(split.examples, "identity", None)
        try:
            keys = None if identity is None else identity()
            example = first_usable(split)
        except TypeError:
            keys = None
        except (ValueError, OSError):  # reported where the examples are read
            return split
        if keys is None:
            if self._builds:
                announce(f"data.cache: {split.place(0) or 'this source'} cannot be cached")
            return split
        packs = self._packs(split, keys, example)
        if packs is None:
            return split
        for pack in packs.values():
            with contextlib.suppress(OSError):  # the time of the last use
                os.utime(pack.folder / CONTENT)
        for task in split.tasks:
            _restore_changes(split, task.name, packs[task.name])
        return PackedSplit(split, packs, structure_of(example, packs))

    def _packs(
        self, split: LazySplit, keys: Mapping[str, str], example: Example
    ) -> dict[str, Pack] | None:
        """Returns the pack of each part, None if there are some only and none can be written."""
        packs = self._open(keys, len(split))
        if len(packs) == len(keys) or not self._builds:
            self._used |= set(keys.values())
            return packs if len(packs) == len(keys) else None
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            with self._locked(keys[IMAGE]):
                packs = self._open(keys, len(split))  # another run may have written them
                absent = [name for name in keys if name not in packs]
                if absent and self._has_space(split, absent, keys, example):
                    what = f"caching {len(split):,} decoded examples in {self._folder}"
                    with phase(what):
                        self._write(split, absent, keys, example)
                    packs = self._open(keys, len(split))
        except OSError as error:
            announce(f"data.cache: cannot write to {self._folder}: {error.strerror}")
        self._used |= set(keys.values())
        return packs if len(packs) == len(keys) else None

    def _open(self, keys: Mapping[str, str], rows: int) -> dict[str, Pack]:
        """Returns the packs that exist."""
        packs = {name: open_pack(self._folder / key, rows) for name, key in keys.items()}
        return {name: pack for name, pack in packs.items() if pack is not None}

    @contextlib.contextmanager
    def _locked(self, key: str) -> Iterator[None]:
        """Context in which no other process writes packs of the same images."""
        path = self._folder / f"{key}.lock"
        with contextlib.ExitStack() as stack:
            try:
                stack.enter_context(holding_lock(path))
            except filelock.Timeout:
                with phase("waiting for another run, which caches the same examples"):
                    stack.enter_context(holding_lock(path, timeout=-1))
            yield

    def _has_space(
        self,
        split: LazySplit,
        names: Sequence[str],
        keys: Mapping[str, str],
        example: Example,
    ) -> bool:
        """Removes the packs used longest ago; returns False if that is not enough space."""
        needed = len(split) * sum(num_bytes(example, name) for name in names)
        keep = self._used | set(keys.values())
        packs = sorted(self._folder.glob(f"*/{CONTENT}"), key=_time)
        sizes = {file.parent: _size(file.parent) for file in packs}
        kept = sum(size for folder, size in sizes.items() if folder.name in keep)
        if needed + kept > self._limit:
            announce(
                f"data.cache: {(needed + kept) / GB:.2f} GB are needed, more than the limit of "
                f"{self._limit / GB:g}: {len(split):,} examples are read from their files"
            )
            return False
        for folder in list(sizes):
            if needed + sum(sizes.values()) <= self._limit:
                break
            if folder.name not in keep:
                announce(f"data.cache: removes {folder}, used longest ago")
                shutil.rmtree(folder, ignore_errors=True)
                del sizes[folder]
        free = shutil.disk_usage(self._folder).free
        if needed > free:
            announce(
                f"data.cache: {needed / GB:.2f} GB are needed, but {self._folder} has "
                f"{free / GB:.2f} GB free: {len(split):,} examples are read from their files"
            )
        return needed <= free

    def _write(
        self,
        split: LazySplit,
        names: Sequence[str],
        keys: Mapping[str, str],
        example: Example,
    ) -> None:
        """Writes the packs of some parts."""
        self._remove_unfinished()
        temporary = Path(tempfile.mkdtemp(prefix=PART, dir=self._folder))  # for the user only
        try:
            with contextlib.ExitStack() as stack:
                writers = {
                    name: stack.enter_context(
                        PackWriter(temporary / keys[name], name, example, len(split))
                    )
                    for name in names
                }
                for item in read_examples(split):
                    for writer in writers.values():
                        writer.add(item)
                for name, writer in writers.items():
                    writer.finish(_changes(split, name))
            for name in names:
                target = self._folder / keys[name]
                if open_pack(target, len(split)) is not None:  # written by a run without locks
                    continue
                if target.exists():
                    announce(f"data.cache: {target} was damaged and is written again")
                    shutil.rmtree(target)
                os.rename(temporary / keys[name], target)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)

    def _remove_unfinished(self) -> None:
        """Removes what runs that were killed have left, after a day."""
        for folder in self._folder.glob(f"{PART}*"):
            if time.time() - _time(folder) > 86_400:
                shutil.rmtree(folder, ignore_errors=True)


def _changes(split: LazySplit, name: str) -> list[tuple[int, str, str, int]]:
    """Returns what was changed in the labels of a task that were read; see `LazySplit.changes`."""
    return [
        (row, kind, what, count)
        for (row, task), changes in sorted(split.changes.items())
        if task == name
        for (kind, what), count in changes.items()
    ]


def _restore_changes(split: LazySplit, name: str, pack: Pack) -> None:
    """Records the changes of labels in a pack as if they were read."""
    for row, kind, what, count in pack.notes:
        known = dict(split.changes.get((row, name), {}))
        split.changes[row, name] = {**known, (kind, what): count}  # type: ignore[dict-item]


def _time(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0


def _size(folder: Path) -> int:
    """Returns the bytes of a pack."""
    return sum(file.stat().st_size for file in folder.iterdir() if file.is_file())
