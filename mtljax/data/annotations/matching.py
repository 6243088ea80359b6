"""Matching of images with the entries of annotation files, by their paths."""

from collections.abc import Collection, Iterable, Sequence
from pathlib import Path

from mtljax.data.layouts import is_file
from mtljax.data.notes import NoteCounter
from mtljax.utils.text import normalized


def normalized_path(name: str) -> str:
    """Returns a file name with forward slashes, in Unicode normal form C, without "./"."""
    return normalized(name).replace("\\", "/").removeprefix("./")


def is_outside(name: str) -> bool:
    """Returns True for an absolute path, also of Windows, and for one that leads upwards."""
    return name.startswith("/") or ".." in name.split("/") or ":" in name


def longest_end(folder: Path, name: str) -> Path | None:
    """Returns the file in a folder that has the longest end of a path of another computer.

    None if there is no such file in a subfolder: base names are not unique.
    """
    parts = [part for part in name.split("/") if part not in ("", ".", "..") and ":" not in part]
    ends = (folder.joinpath(*parts[k:]) for k in range(len(parts) - 1))
    return next(filter(is_file, ends), None)


def match_images(
    path: Path, entries: Collection[str], images: Sequence[str], notes: NoteCounter
) -> list[str | None]:
    """Returns the entry of each image, by relative path, or by base name if that is unique.

    Args:
      path: Annotation file, for messages.
      entries: Names in the annotation file, as `normalized_path` returns them.
      images: Relative path of each image.

    Raises:
      ValueError: An image matches several entries by its base name, or an entry several images.
    """
    images = list(map(normalized_path, images))
    same_base, files = _by_base(entries), _by_base(images)
    known, matches = set(entries), list[str | None]()
    for image in images:
        tails = [image.split("/", i)[-1] for i in range(image.count("/") + 1)]
        name = next((tail for tail in tails[:-1] or tails if tail in known), None)
        if name is None and (candidates := same_base.get(_base(image))):
            if len(candidates) > 1 or len(files[_base(image)]) > 1:
                raise ValueError(
                    f"{path}: image {image} matches {candidates[0]} by its base name only, which "
                    "is not unique; write the same relative path in the table and in file_name"
                )
            name = candidates[0]
        matches.append(name)
    used = set(matches)
    for name in entries:
        if name not in used:
            notes.add("unmatched", f"images of {path.name} without a row in the table", name)
    unlisted = [image for image, name in zip(images, matches, strict=True) if name is None]
    if unlisted:
        notes.add("missing", f"labels: images not in {path.name}", unlisted[0], len(unlisted))
    return matches


def _base(name: str) -> str:
    return name.rpartition("/")[2]


def _by_base(names: Iterable[str]) -> dict[str, list[str]]:
    groups: dict[str, list[str]] = {}
    for name in names:
        groups.setdefault(_base(name), []).append(name)
    return groups
