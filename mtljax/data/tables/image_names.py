"""Search for the files that cells of a table name."""

import itertools
import os
import posixpath
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from mtljax.data.files.encoded import EncodedImage, ImageFile
from mtljax.data.files.images import FILES
from mtljax.data.layouts import is_hidden
from mtljax.data.notes import NoteCounter
from mtljax.data.rows import Row
from mtljax.utils.text import listed, normalized, shortened

URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/|data:")
"""Start of a URL."""
WHOLE_NUMBER = re.compile(r"\d+\.0", re.ASCII)
"""Id in a column that also has empty cells."""
DRIVE = re.compile(r"[A-Za-z]:/")
"""Start of an absolute path on Windows."""
MOST_FOLDERS = 20
"""Number of subfolders in which a missing file is searched for a message."""


class FileFinder:
    """Search for files by the names in cells.

    A name is a path with slashes or backslashes, relative to the folder of the table or of the data
    set, or to its subfolder. It is compared in Unicode
    normal form C, without the case of the extension, and may lack the extension if no other file
    has this name. An absolute path that does not exist here is matched by its longest end that is a
    file in a folder. Names with a converted form are counted in `notes`.
    """

    def __init__(self, root: Path, subfolder: str, notes: NoteCounter) -> None:
        self._root, self._subfolder, self._notes = root, subfolder, notes
        self._folders: tuple[Path, ...] = ()
        self._listings: dict[Path, dict[str, list[str]]] = {}
        self._subfolders: dict[Path, list[str]] = {}

    def find(self, cell: Any, row: Row) -> ImageFile:
        """Returns the file that a cell names; raises ValueError if there is none, or are several.

        Args:
          cell: File name, id of an image, or encoded image.
          row: Row of the cell.
        """
        if isinstance(cell, EncodedImage):
            return cell
        name = _name(cell)
        parents = dict.fromkeys((row.file.parent, self._root))
        self._folders = tuple(path for p in parents for path in (p / self._subfolder, p))
        try:
            return self._find(str(cell), name, str(row))
        except (OSError, ValueError) as error:  # too long, or with NUL characters
            if isinstance(error, _NotFound):
                raise ValueError(str(error)) from None
            raise ValueError(f"{shortened(name)!r} cannot be a file name") from None

    def _find(self, cell: str, name: str, place: str) -> Path:
        first = name.partition("/")[0]
        beside = [folder.parent for folder in self._folders if folder.name == first]
        for folder in (*self._folders, *beside):
            for text in dict.fromkeys((cell, name)):
                file = folder / text
                if file.is_file():
                    return file
        for read, what in (
            (self._by_normal_form, ""),
            (self._by_stem, "image names without an extension"),
        ):
            if path := self._first(name, read):
                self._notes.add("converted", what, place, bool(what))
                return path
        if WHOLE_NUMBER.fullmatch(name) and (path := self._first(name[:-2], self._by_stem)):
            self._notes.add("converted", "ids of images such as 12.0 to 12", place)
            return path
        if name.startswith("/") or DRIVE.match(name):
            parts = name.split("/")[1:]
            for tail in ("/".join(parts[i:]) for i in range(len(parts))):
                if path := self._first(tail, self._by_normal_form):
                    what = "absolute paths that do not exist to files in the folder"
                    self._notes.add("converted", what, place)
                    return path
        folders = " or ".join(dict.fromkeys(map(str, self._folders)))
        raise _NotFound(f"there is no file {shortened(name)} in {folders}{self._hint(name)}")

    def _first(self, name: str, read: Callable[[Path, str], list[Path]]) -> Path | None:
        """Returns the only match in the first folder that has one."""
        for folder in self._folders:
            directory = folder
            *parents, base = name.split("/")
            for part in parents:
                names = self._listing(directory).get(part, [part]) if part != ".." else [part]
                directory = directory / names[0]
            matches = read(directory, base)
            if len(matches) > 1:
                both = " and ".join(path.name for path in matches[:2])
                raise _NotFound(f"{shortened(name)} may be {both}: write the full name")
            if matches:
                return matches[0]
        return None

    def _by_normal_form(self, directory: Path, base: str) -> list[Path]:
        names = self._listing(directory).get(_key(base), [])
        return [path for path in map(directory.joinpath, names) if path.is_file()]

    def _by_stem(self, directory: Path, base: str) -> list[Path]:
        if base.lower().endswith(FILES):
            return []
        listing = self._listing(directory)
        return [
            directory / name for extension in FILES for name in listing.get(base + extension, ())
        ]

    def _hint(self, name: str) -> str:
        """Returns the cause: a dangling link, another extension, absent zeros, another folder."""
        stem, extension = posixpath.splitext(name)
        if any(os.path.islink(folder / name) for folder in self._folders):
            return "; the link of this name leads to a file that does not exist"
        for folder in self._folders:
            directory, base = folder / posixpath.dirname(name), posixpath.basename(stem)
            for key, names in self._listing(directory).items():
                other = posixpath.splitext(key)[0]
                if not key.endswith(FILES):
                    continue
                if extension and other == base:
                    return f"; did you mean {names[0]}?"
                if base.isdecimal() and other.isdecimal() and int(other) == int(base):
                    return f"; did you mean {names[0]}? Names are text: write all zeros"
        if any((folder / self._subfolder).is_dir() for folder in self._folders):
            return ""  # a file of the same name elsewhere may be a mask
        found = [
            inside
            for folder in self._folders
            for inside in self._inside(folder)
            if (folder / inside / name).is_file()
        ]
        return (
            f"; it is in subfolder {listed(found)}, which must be called {self._subfolder}"
            * bool(found)
        )

    def _inside(self, folder: Path) -> list[str]:
        """Returns the names of the subfolders, up to a maximum."""
        if folder not in self._subfolders:
            entries = sorted(folder.iterdir()) if folder.is_dir() else []
            names = (path.name for path in entries if path.is_dir() and not is_hidden(path.name))
            self._subfolders[folder] = list(itertools.islice(names, MOST_FOLDERS))
        return self._subfolders[folder]

    def _listing(self, directory: Path) -> dict[str, list[str]]:
        """Returns the names in a directory by their normal form."""
        if directory not in self._listings:
            names: dict[str, list[str]] = {}
            for name in sorted(os.listdir(directory)) if directory.is_dir() else ():
                names.setdefault(_key(name), []).append(name)
            self._listings[directory] = names
        return self._listings[directory]

    def unmatched(self, used: Sequence[Path]) -> list[Path]:
        """Returns the unused image files in the directories of the used files."""
        known = set(used)
        return [
            path
            for directory in sorted({path.parent for path in used})
            for names in self._listing(directory).values()
            for path in (directory / name for name in names)
            if path.suffix.lower() in FILES and path not in known and not is_hidden(path.name)
        ]


class _NotFound(ValueError):
    """A name without a file, or with several; the message is complete."""


def _key(name: str) -> str:
    """Returns a file name in Unicode normal form C, with the extension in lower case."""
    stem, extension = posixpath.splitext(normalized(name))
    return stem + extension.lower()


def _name(cell: Any) -> str:
    """Returns the file name in a cell, with slashes."""
    if isinstance(cell, float) and cell.is_integer():
        cell = int(cell)  # tables with empty cells store floating-point numbers
    if isinstance(cell, int) and not isinstance(cell, bool):
        cell = str(cell)
    if cell is None:
        raise ValueError("the cell with the image's name is empty")
    if not isinstance(cell, str):
        shown = type(cell).__name__ if isinstance(cell, (list, dict)) else shortened(repr(cell))
        raise ValueError(f"must have the name of an image file, not {shown}")
    if URL.match(cell) and not DRIVE.match(cell):
        raise ValueError(
            f"{shortened(cell)!r} is a URL; download the images and write their file names"
        )
    return posixpath.normpath(cell.replace("\\", "/"))
