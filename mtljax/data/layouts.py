"""Layouts of data sets in folders: splits as folders, and files that belong to an image by name."""

import functools
import os
import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from mtljax.data.files.images import FILES
from mtljax.data.notes import NoteCounter
from mtljax.utils.text import normalized

SPLITS = {
    "train": "train",
    "training": "train",
    "trainval": "train",
    "val": "validation",
    "valid": "validation",
    "validation": "validation",
    "dev": "validation",
    "development": "validation",
    "test": "test",
    "testing": "test",
}
"""Split of each name that tables, folders and files have for it, in lower case."""
FILLERS = {"set", "split", "data", "images", "image", "imgs", "img", "labels"}
"""Words that may be next to the name of a split in the name of a folder: `training_set`."""
SYSTEM_FILES = {"thumbs.db", "desktop.ini", "__macosx"}
"""Names, in lower case, of files and folders that operating systems add."""


def split_name(text: str) -> str | None:
    """Returns the split that a folder or file is named after, such as "test" for `Test2017`."""
    words = [word for word in re.split(r"[^a-z]+|\d+", text.lower()) if word]
    splits = {SPLITS.get(word) for word in words if word not in FILLERS}
    return splits.pop() if len(splits) == 1 else None


def folder_split(root: Path, file: Path) -> str | None:
    """Returns the split of the first folder between a root and a file that is named after one."""
    names = map(split_name, file.relative_to(root).parts[:-1])
    return next((name for name in names if name), None)


def relative_name(root: Path, file: Path) -> str:
    """Returns the normalized path of a file in a folder, or its entire path outside of it.

    Bytes that are not UTF-8 become escape sequences; see `is_utf8`.
    """
    inside = file.is_relative_to(root)
    path = (file.relative_to(root) if inside else file).as_posix()
    return normalized(path.encode(errors="backslashreplace").decode())


def is_utf8(name: str) -> bool:
    """Returns True if a name can be written to other files: that of a file may be any bytes."""
    try:
        return bool(name.encode()) or not name
    except UnicodeEncodeError:
        return False


def is_hidden(name: str) -> bool:
    """Returns True for names that start with a dot, and for files of the operating system."""
    return name.startswith(".") or name.lower() in SYSTEM_FILES


def subfolders(folder: Path) -> list[Path]:
    """Returns the visible folders in a folder, sorted by name."""
    inside = [child for child in folder.iterdir() if child.is_dir() and not is_hidden(child.name)]
    return sorted(inside, key=lambda child: normalized(child.name))


def walk(folder: Path) -> Iterator[Path]:
    """Yields the visible files in a folder and its subfolders, also linked ones, in sorted order.

    Raises:
      ValueError: A folder cannot be read, or links to a folder that contains it.
    """

    def refuse(error: OSError) -> None:
        raise ValueError(f"{error.filename} cannot be read: {error.strerror}")

    for place, folders, files in os.walk(folder, onerror=refuse, followlinks=True):
        folders[:] = sorted(name for name in folders if not is_hidden(name))
        for name in folders:
            inner = Path(place, name)
            if inner.is_symlink() and Path(place).resolve().is_relative_to(inner.resolve()):
                raise ValueError(f"{inner} is a link to a folder that contains it")
        yield from (Path(place, name) for name in sorted(files) if not is_hidden(name))


def find_images(folder: Path, notes: NoteCounter) -> list[Path]:
    """Returns the images in a folder and its subfolders; `notes` counts the other files."""
    images = []
    for file in walk(folder):
        if file.suffix.lower() in FILES:
            images.append(file)
        else:
            notes.add("dropped", f"files that are no images ({extension(file)})", str(file))
    return images


def extension(file: Path) -> str:
    """Returns a file's extension for messages."""
    return file.suffix.lower() or "no extension"


def is_file(path: Path) -> bool:
    """Returns True if a file exists; False also for names that cannot be those of files."""
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False


def is_folder(path: Path) -> bool:
    """Returns True if a folder exists, as `is_file` does."""
    try:
        return path.is_dir()
    except (OSError, ValueError):
        return False


def unique_splits(folders: Sequence[Path]) -> dict[str, Path]:
    """Returns the folder of each split, among folders that are all named after one.

    Raises:
      ValueError: Two folders are named after one split.
    """
    folder_of: dict[str, Path] = {}
    for folder in folders:
        name = split_name(folder.name)
        if name in folder_of:
            raise ValueError(
                f"{folder.parent} has two folders for the {name} split, {folder_of[name].name} and "
                f"{folder.name}; merge or remove one"
            )
        if name is not None:
            folder_of[name] = folder
    return folder_of


class Pairs(NamedTuple):
    """Images and the files that belong to them by name."""

    files: dict[Path, list[Path]]
    """Image -> files with its name, in the same folder or in a corresponding one."""
    unmatched: list[Path]
    """Files without an image."""
    rivals: dict[Path, Path]
    """Image -> another image with its name and another extension."""

    def require_unique(self, image: Path) -> None:
        """Raises ValueError if another image has the same file, or the image has several."""
        if image in self.rivals:
            other = self.rivals[image]
            raise ValueError(f"{image} and {other} have the same name: rename or remove one")
        if len(self.files[image]) > 1:
            first, second = self.files[image][:2]
            raise ValueError(f"{image} has two label files, {first} and {second}: remove one")


def path_key(root: Path, file: Path, ignored: Collection[str]) -> tuple[str, ...]:
    """Returns the folders and the name of a file, normalized, without extension and some folders.

    Args:
      ignored: Names of folders that are left out, in lower case.
    """
    *folders, _ = file.relative_to(root).parts
    kept = [normalized(name) for name in folders if name.lower() not in ignored]
    return (*kept, normalized(file.stem))


def pair(
    root: Path,
    images: Sequence[Path],
    files: Sequence[Path],
    ignored: Collection[str],
    notes: NoteCounter,
) -> Pairs:
    """Matches files with images by their paths in `root`, without extension.

    Files whose paths match no image are matched by their names if these are unique, also
    among images, and noted.

    Args:
      ignored: Names of folders, in lower case, that are left out of the comparison, so that
        labels/train/1.txt belongs to images/train/1.jpg, and train/labels/1.txt to
        train/images/1.jpg.
    """
    key = functools.partial(path_key, root, ignored=ignored)
    by_key: dict[tuple[str, ...], list[Path]] = {}
    for image in images:
        by_key.setdefault(key(image), []).append(image)
    matched: dict[Path, list[Path]] = {image: [] for image in images}
    unmatched = []
    for file in files:
        owners = by_key.get(key(file), [])
        for image in owners:
            matched[image].append(file)
        if not owners:
            unmatched.append(file)
    rivals = {
        image: group[group[0] == image]
        for group in by_key.values()
        if len(group) > 1
        for image in group
    }
    free, same_name, by_name = _by_stem(images), _by_stem(unmatched), set[Path]()
    for stem, (file, *more) in same_name.items():
        owners = free.get(stem, [])
        if len(owners) != 1 or more or matched[owners[0]]:
            continue
        if folder_split(root, file) in (None, folder_split(root, owners[0])):
            notes.add("converted", "files of another folder to labels, by unique names", str(file))
            matched[owners[0]].append(file)
            by_name.add(file)
    return Pairs(matched, [file for file in unmatched if file not in by_name], rivals)


def _by_stem(files: Iterable[Path]) -> dict[str, list[Path]]:
    groups: dict[str, list[Path]] = {}
    for file in files:
        groups.setdefault(normalized(file.stem), []).append(file)
    return groups
