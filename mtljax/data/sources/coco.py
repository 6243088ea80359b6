"""Source of images with COCO annotation files."""

import itertools
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from mtljax.data.annotations.base import AnnotationSet
from mtljax.data.annotations.coco import read_coco
from mtljax.data.annotations.labels import label_name, with_categories
from mtljax.data.annotations.matching import is_outside, longest_end
from mtljax.data.base import LabelRequest, Source
from mtljax.data.files.jpeg import Decoder
from mtljax.data.layouts import SPLITS, is_file, split_name, walk
from mtljax.data.notes import NoteCounter
from mtljax.data.sources.arguments import find_folder
from mtljax.data.sources.entries import Entry, Opening, annotated_entries, drop_unlabelled
from mtljax.tasks import Keypoints
from mtljax.utils.text import listed, shortened

PREFERRED = ("instances", "annotations coco")
"""Names of annotation files with boxes and masks, without split and year, of COCO and Roboflow."""
PREFERRED_KEYPOINTS = ("person keypoints", *PREFERRED)
"""Kinds of annotation files for keypoints, the preferred ones first."""
SAMPLE = 100
"""Number of images that are searched to find the folder of the images."""


def coco(
    path: str,
    *,
    annotations: str | None = None,
    images: str | None = None,
    size: tuple[int, ...] | None = None,
    channels: int = 3,
    validation: float = 0.1,
    test: float = 0.2,
    seed: int = 0,
    group: str | None = None,
    requests: Sequence[LabelRequest],
    decoder: Decoder = "turbo",
) -> Source:
    """Images with COCO files: boxes, masks, keypoints and categories, without a table.

    Reads annotations/instances_train2017.json with train2017/ or images/train2017/ (and so on for
    val and test), train/_annotations.coco.json (Roboflow), or one file for all images. Each task
    reads the label of its kind: boxes (Detection), masks (Segmentation; class 0 is the background),
    keypoints (Keypoints; images with one object only) or classes (MultiLabel: categories in the
    image). Classes are the categories, or the `class_names` of the task, a part of them.

    Args:
      path: Folder, or annotation file, relative to the working directory or `$MTLJAX_DATA`.
      annotations: Start of the names of the annotation files; by default instances, for keypoints
        person_keypoints, or the only name. `data.labels` sets it for one task.
      images: Folder of the images in the data set; if omitted, it is searched.
      size: (height, width) to resize images and labels to; if omitted, all sizes must be equal.
      channels: 3 for color, 1 for gray, or the number of bands of TIFF and npy files.
      validation, test: Share of the images of a split without a file, by a hash of the file name.
      seed: Seed of this selection.
      group: Regular expression of the part of a file name that the images of a scene or video
        share, such as 'video[0-9]+'; they are in one split or fold.
    """
    opening, notes = Opening(size, channels, validation, test, seed, group, decoder), NoteCounter()
    root, candidates = _annotation_files(path)
    chosen = [_select(root, candidates, request, annotations) for request in requests]
    paths = dict.fromkeys(itertools.chain.from_iterable(files.values() for files in chosen))
    opened = {file: read_coco(file, notes) for file in paths}
    for file, content in opened.items():
        if not content.has_objects:
            what = f"images of {file.name}, which has no annotations"
            notes.add("dropped", what, str(file), len(content.images))
    chosen = [_with_objects(root, files, opened) for files in chosen]
    tasks, unusable = [], dict[str, str]()
    for request, files in zip(requests, chosen, strict=True):
        classes = dict.fromkeys(n for file in files.values() for n in opened[file].class_names)
        task, absent = with_categories(request.task, list(classes), root)
        tasks.append(task)
        unusable |= {"train": absent} if absent else {}
    entries: list[Entry] = []
    for split in dict.fromkeys(split for files in chosen for split in files):
        present = [opened[files[split]] if split in files else None for files in chosen]
        names = list(dict.fromkeys(n for part in present if part for n in part.images))
        first = next(part for part in present if part)
        paths_of = _find_images(root, split, first, names, images)
        in_split = dict.fromkeys(names, split or None)
        entries += annotated_entries(present, tasks, paths_of, in_split, notes)
    _require_disjoint(root, entries)
    return opening.source(root, drop_unlabelled(entries, notes), tasks, notes, unusable)


def _annotation_files(path: str) -> tuple[Path, list[Path]]:
    """Returns the folder of the data set and its JSON files."""
    if path.lower().endswith(".json"):
        name = Path(path).name
        folder = find_folder(str(Path(path).parent))
        if not (folder / name).is_file():
            raise ValueError(f"there is no file {name} in {folder}")
        inner = folder.name.lower() == "annotations"
        return folder.parent if inner else folder, [folder / name]
    root = find_folder(path)
    files = [file for file in walk(root) if file.suffix.lower() == ".json"]
    if not files:
        raise ValueError(
            f"{root} has no COCO file; expected annotations/instances_train.json, "
            "train/_annotations.coco.json, or another .json file"
        )
    return root, files


def _select(
    root: Path, files: Sequence[Path], request: LabelRequest, annotations: str | None
) -> dict[str, Path]:
    """Returns the annotation file of each split, "" without splits, for a task."""
    task, key = request
    label = label_name(root, task)
    start = annotations if key in (task.name, label) else key
    if start is not None:
        selected = [f for f in files if _starts(root, f, start)]
    else:
        by_kind: dict[str, list[Path]] = {}
        for file in files:
            by_kind.setdefault(_kind(file), []).append(file)
        preferred = PREFERRED_KEYPOINTS if isinstance(task, Keypoints) else PREFERRED
        kinds = [kind for kind in preferred if kind in by_kind] or list(by_kind)
        if len(kinds) > 1 and not any(kind in by_kind for kind in preferred):
            names = listed(file.name for file in files)
            raise ValueError(
                f"{root} has several COCO files ({names}); select those of task {task.name!r} by "
                "annotations=START-OF-THE-NAME"
            )
        selected = by_kind[kinds[0]]
    if not selected:
        names = listed(str(file.relative_to(root)) for file in files)
        raise ValueError(
            f"{root} has no .json file that starts with {start!r}, for task {task.name!r}; it has "
            f"{names}"
        )
    splits: dict[str, Path] = {}
    for file in selected:
        split = _split(root, file)
        if split in splits or ("" in splits) != (split == "") and splits:
            other = next(iter(splits.values())).relative_to(root)
            raise ValueError(
                f"{root}: {other} and {file.relative_to(root)} are both for task {task.name!r}; "
                "select one by annotations=NAME, or name them after their splits"
            )
        splits[split] = file
    return splits


def _with_objects(
    root: Path, files: Mapping[str, Path], opened: Mapping[Path, AnnotationSet]
) -> dict[str, Path]:
    """Returns the annotation files that have annotations."""
    annotated = {split: file for split, file in files.items() if opened[file].has_objects}
    if not annotated:
        names = listed(str(file.relative_to(root)) for file in files.values())
        raise ValueError(f"{root}: no annotations in {names}")
    return annotated


def _starts(root: Path, file: Path, start: str) -> bool:
    return file.name.startswith(start) or file.relative_to(root).as_posix() == start


def _words(file: Path) -> list[str]:
    return [word for word in re.split(r"[^a-z]+", file.stem.lower()) if word]


def _kind(file: Path) -> str:
    """Returns a file name without split and year, such as "person keypoints"."""
    return " ".join(word for word in _words(file) if word not in SPLITS)


def _split(root: Path, file: Path) -> str:
    """Returns the split in the name of a file or of its folder, "" if there is none."""
    splits = dict.fromkeys(SPLITS[word] for word in _words(file) if word in SPLITS)
    if len(splits) > 1:
        raise ValueError(
            f"{file} is named after several splits; rename it, or set annotations=NAME"
        )
    folders = [split_name(name) for name in reversed(file.relative_to(root).parts[:-1])]
    return next(iter([*splits, *filter(None, folders)]), "")


def _find_images(
    root: Path, split: str, file: AnnotationSet, names: Sequence[str], images: str | None
) -> Mapping[str, Path]:
    """Returns the path of each image: by its name in the folder that contains most of them.

    Of names that lead out of the folder, as absolute ones do, the longest end that is a file in it
    is used; the base name only if it is unique.

    Raises:
      ValueError: No image exists, or two names are one file.
    """
    folders = _image_folders(root, split, file, images)
    bases = [name.rpartition("/")[2] for name in names]
    counts: dict[str, int] = {}
    for base in bases:
        counts[base] = counts.get(base, 0) + 1

    def path(folder: Path, name: str, base: str) -> Path:
        full = folder / name.lstrip("/")
        if not is_outside(name) and (is_file(full) or counts[base] > 1):
            return full
        file_path = longest_end(folder, name) if is_outside(name) else None
        if file_path is not None:
            return file_path
        return folder / base if is_file(folder / base) and counts[base] == 1 else full

    step = max(1, len(names) // SAMPLE)
    for chosen in (slice(None, None, step), slice(None)):
        pairs = list(zip(names[chosen], bases[chosen], strict=True))
        hits = [sum(is_file(path(folder, *pair)) for pair in pairs) for folder in folders]
        if any(hits):
            break
    else:
        raise ValueError(
            f"{file.path}: none of its images exists, such as {shortened(names[0])}, in "
            f"{listed(map(str, folders))}; images=FOLDER names their folder"
        )
    folder = folders[hits.index(max(hits))]
    paths = {name: path(folder, name, base) for name, base in zip(names, bases, strict=True)}
    owners: dict[Path, str] = {}
    for name, file_path in paths.items():
        other = owners.setdefault(file_path, name)
        if other != name:
            both = f"{shortened(other)} and {shortened(name)}"
            raise ValueError(f"{file.path}: {both} are the same file {file_path}; correct one")
    return paths


def _image_folders(root: Path, split: str, file: AnnotationSet, images: str | None) -> list[Path]:
    """Returns the folders that may contain the images of an annotation file."""
    bases = [root / "images", root] if images is None else [root / images, Path(images)]
    folders = [] if images else [file.path.parent]
    for base in bases:
        if base.is_dir():
            inside = sorted(child for child in base.iterdir() if child.is_dir())
            same = [child for child in inside if file.path.stem.endswith(child.name)]
            of_split = [child for child in inside if split and split_name(child.name) == split]
            folders += [*same, *of_split, *(child / "images" for child in of_split), base]
    return [folder for folder in dict.fromkeys(folders) if folder.is_dir()]


def _require_disjoint(root: Path, entries: Sequence[Entry]) -> None:
    """Raises ValueError if an image is in two splits."""
    splits: dict[Path, str | None] = {}
    for entry in entries:
        other = splits.setdefault(entry.image, entry.split)
        if other != entry.split:
            raise ValueError(
                f"{root}: image {entry.image.relative_to(root)} is in the {other} and the "
                f"{entry.split} split; leave it out of one"
            )
