"""Splits of YOLO data sets: folders and lists of images in data.yaml, or lists in files."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from mtljax.data.annotations.matching import is_outside, longest_end
from mtljax.data.annotations.yolo import YoloFile, read_lines
from mtljax.data.files.images import FILES
from mtljax.data.layouts import SPLITS, is_file, is_folder
from mtljax.data.notes import NoteCounter
from mtljax.utils.text import shortened


def find_splits(
    root: Path, images: Sequence[Path], config: YoloFile, notes: NoteCounter
) -> dict[Path, str | None]:
    """Returns the split of each image, None for images in no split; {} if no splits are given.

    A split that repeats the training split, as in examples of Ultralytics, is ignored and noted.

    Raises:
      ValueError: A folder or list does not exist, or an image is in two splits.
    """
    given = config.splits or _lists(root)
    images_of: dict[str, list[Path]] = {}
    for split, entries in given.items():
        for entry in entries:
            place = _locate(root, config, entry)
            fault = f"{config.path}: {split} is {shortened(entry)!r}, which does not exist"
            if place is None and split == "train":
                raise ValueError(fault)
            if place is None:
                notes.add("warning", fault)
            else:
                images_of.setdefault(split, []).extend(_images(root, place, images))
    for split in ("validation", "test"):
        if split in images_of and set(images_of[split]) == set(images_of.get("train", ())):
            del images_of[split]
            notes.add("warning", f"{config.path}: the {split} split is the train split: ignored")
    splits: dict[Path, str | None] = {}
    for split, paths in images_of.items():
        for path in paths:
            other = splits.setdefault(path, split)
            if other != split:
                raise ValueError(f"{config.path}: {path} is in the {other} and the {split} split")
    return splits and {**dict.fromkeys(images), **splits}


def _lists(root: Path) -> Mapping[str, tuple[str, ...]]:
    """Returns the text files of a folder that are named after splits and list images."""
    files = [root / f"{name}.txt" for name in SPLITS]
    return {
        SPLITS[file.stem]: (file.name,)
        for file in files
        if is_file(file) and any(map(_is_image, read_lines(file)[:1]))
    }


def _is_image(line: str) -> bool:
    return line.lower().endswith(FILES)


def _locate(root: Path, config: YoloFile, entry: str) -> Path | None:
    """Returns the folder or list of images that an entry names, None if it does not exist."""
    inner = entry.replace("\\", "/").removeprefix("./")
    while inner.startswith("../"):
        inner = inner[3:]
    folders = (root / config.base, root)
    for place in (folder / name for name in (entry, inner) for folder in folders):
        if (is_file(place) or is_folder(place)) and place.resolve().is_relative_to(root.resolve()):
            return root / place.resolve().relative_to(root.resolve())
    return None


def _images(root: Path, place: Path, images: Sequence[Path]) -> list[Path]:
    """Returns the images in a folder, or those that a text file lists."""
    if place.is_dir():
        return [image for image in images if image.is_relative_to(place)]
    if _is_image(place.name):
        return [place]
    found = []
    for number, line in enumerate(read_lines(place), 1):
        name = line.replace("\\", "/").removeprefix("./")
        paths = [folder / name for folder in (place.parent, root)]
        path = next((path for path in paths if is_file(path)), paths[0])
        if is_outside(name) and (".." in path.parts or not is_file(path)):
            path = longest_end(place.parent, name) or longest_end(root, name) or path
        if not path.is_relative_to(root) or ".." in path.parts:
            raise ValueError(f"{place} line {number}: {name[:60]!r} is outside of {root}")
        found.append(path)
    return found
