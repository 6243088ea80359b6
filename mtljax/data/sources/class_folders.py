"""Source of images in one folder per class."""

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from mtljax.data.base import LabelRequest, Source, require_labels
from mtljax.data.class_names import absent_class, note_similar_classes, requested_names
from mtljax.data.files.images import FILES
from mtljax.data.files.jpeg import Decoder
from mtljax.data.layouts import find_images, is_utf8, split_name, subfolders, unique_splits
from mtljax.data.lazy import tasks_of
from mtljax.data.membership import Membership
from mtljax.data.notes import NoteCounter
from mtljax.data.sources.arguments import find_folder
from mtljax.data.sources.entries import Entry, Opening
from mtljax.tasks import Classification
from mtljax.utils.registry import did_you_mean
from mtljax.utils.text import listed, normalized, shortened

EXPECTED = "CLASS/*.jpg, or train/CLASS/*.jpg, val/CLASS/*.jpg and test/CLASS/*.jpg"
"""Layout of the folder, for messages."""


def class_folders(
    path: str,
    size: tuple[int, ...] | None = None,
    channels: int = 3,
    validation: float = 0.2,
    test: float = 0.2,
    seed: int = 0,
    stratify: bool = False,
    group: str | None = None,
    *,
    requests: Sequence[LabelRequest],
    decoder: Decoder = "turbo",
) -> Source:
    """Folders of images, one per class (as ImageNet): label `class`, the name of the folder.

    Classes are in alphabetical order. Images may be in subfolders of a class. The class folders may
    be in folders of splits: train, val and test, or valid, validation, dev, training, testing. A
    split that is absent is cut from train. With `class_names`, other folders are left out. A
    single `Classification` task reads the label under any name of the task.

    Args:
      path: Folder of the class folders, relative to the working directory or `$MTLJAX_DATA`.
      size: (height, width) to resize images to; if omitted, all images must have one size.
      channels: 3 for color, 1 for gray, or the number of bands of TIFF and npy files.
      validation, test: Share of the images of a split without a folder, selected by a hash of the
        file name.
      seed: Seed of this selection.
      stratify: Select images of each class in proportion, also for folds. Additional images may
        then move others to another split.
      group: Regular expression of the part of a path that the images of a scene or video
        share, such as 'video[0-9]+'; they are in one split or fold.
    """
    opening = Opening(size, channels, validation, test, seed, group, decoder)
    root, notes = find_folder(path), NoteCounter()
    if [(type(task), key) for task, key in requests] != [(Classification, requests[0].task.name)]:
        require_labels("source class_folders", requests, ["class"])
    folders = _find_class_folders(root, notes)
    images = {
        (split, name): find_images(folder, notes)
        for split, inside in folders.items()
        for name, folder in inside.items()
    }
    names = sorted({name for _, name in images})
    faults = [absent_class(root, task, names, "folder") for task in tasks_of(requests)]
    absent = next(filter(None, faults), "")
    _require_two(root, {name for (_, name), files in images.items() if files}, absent)
    tasks = [task.with_classes(names) for task in tasks_of(requests)]
    requested = [requested_names(task, names) for task in tasks]
    entries = []
    for (split, name), files in images.items():
        values = tuple(name if name in own else None for own in requested)
        if not any(values):
            what = f"images of folder {shortened(name)!r}, which is not in class_names"
            notes.add("dropped", what, str(folders[split][name]), len(files))
            continue
        member = Membership(stratum=name if stratify else "")
        entries += [Entry(image, values, split or None, member=member) for image in files]
    if not entries:
        raise ValueError(absent)
    _note_absences(root, list(folders), images, notes)
    note_similar_classes(tasks[0], names, notes)
    unusable = {"train": absent} if absent else {}
    return opening.source(root, entries, tasks, notes, unusable)


def _require_two(root: Path, used: Collection[str], absent: str) -> None:
    """Raises ValueError unless two folders have images.

    Args:
      absent: Class of a task without a folder, if any: in data for evaluation, one is enough.
    """
    if not used:
        fault = f"{root} has no images in folders of classes; expected {EXPECTED}"
        raise ValueError(absent or fault)
    if len(used) == 1 and not absent:
        (name,) = used
        raise ValueError(
            f"{root} has images of one class only, in the folder {shortened(name)}; expected "
            f"{EXPECTED}; if it contains the class folders, write class_folders:{root / name}"
        )


def _find_class_folders(root: Path, notes: NoteCounter) -> dict[str, dict[str, Path]]:
    """Returns the folder of each class in each split; the split "" if there are no splits."""
    children = subfolders(root)
    if not children:
        raise ValueError(f"{root} has no folders; expected {EXPECTED}")
    splits = {"": root}
    if all(split_name(child.name) for child in children):
        splits = unique_splits(children)
    else:
        _require_classes(root, children)
    inner = {split: _innermost(folder, split) for split, folder in splits.items()}
    for place in dict.fromkeys([root, *splits.values(), *inner.values()]):
        _note_outside(place, notes)
    return {split: _by_name(folder) for split, folder in inner.items()}


def _innermost(folder: Path, split: str) -> Path:
    """Returns the only subfolder if it has the name of the split too, as in some archives."""
    inside = subfolders(folder)
    is_repeated = len(inside) == 1 and split_name(inside[0].name) == split
    return inside[0] if is_repeated else folder


def _by_name(folder: Path) -> dict[str, Path]:
    folders: dict[str, Path] = {}
    for child in subfolders(folder):
        name = normalized(child.name)
        if not is_utf8(name):
            raise ValueError(
                f"{folder} has a folder {shortened(name)!r}, whose name is not in UTF-8: rename it"
            )
        if name in folders:
            raise ValueError(
                f"{folder} has two folders {name!r}, which differ in white space or Unicode form "
                "only; merge them"
            )
        folders[name] = child
    return folders


def _require_classes(root: Path, children: Sequence[Path]) -> None:
    """Raises ValueError if folders that should be classes contain, or are, splits."""
    inner = {child: {normalized(folder.name) for folder in subfolders(child)} for child in children}
    for child, names in inner.items():
        splits = sorted(name for name in names if split_name(name))
        if len({split_name(name) for name in splits}) > 1:
            hint = f"; write class_folders:{child}" if len(children) == 1 else ""
            raise ValueError(
                f"class folder {child} contains the splits {listed(splits)}; expected "
                f"{EXPECTED}{hint}"
            )
    named = [child for child in children if split_name(child.name)]
    for child in named:
        for other in children:
            if other not in named and inner[child] & inner[other]:
                raise ValueError(
                    f"{root} has the folders {child.name} and {other.name} with the same "
                    f"subfolders ({listed(sorted(inner[child] & inner[other]))}), but "
                    f"{other.name!r} is not the name of a split; expected {EXPECTED}"
                )


def _note_outside(folder: Path, notes: NoteCounter) -> None:
    """Counts images that are in no class folder."""
    for file in sorted(folder.iterdir()):
        if file.suffix.lower() in FILES and file.is_file() and not file.name.startswith("."):
            notes.add("dropped", "images outside of the class folders", str(file))


def _note_absences(
    root: Path,
    splits: Sequence[str],
    images: Mapping[tuple[str, str], Sequence[Path]],
    notes: NoteCounter,
) -> None:
    """Warns of classes without images, entirely or in some split that has others."""
    seen = {name: {s for s in splits if images.get((s, name))} for _, name in sorted(images)}
    empty = [name for name, present in seen.items() if not present]
    if empty:
        notes.add("warning", f"classes without images in {root}: {listed(map(repr, empty))}")
    used = {name: present for name, present in seen.items() if present}
    for split in splits:
        absent = [name for name, present in used.items() if split not in present]
        if len(absent) == len(used):
            notes.add("warning", f"the folder of the {split} split has no images in class folders")
        elif absent and split == "train":
            hint = did_you_mean(absent[0], used.keys() - set(absent))
            what = f"classes without training images: {listed(map(repr, absent))}{hint}"
            notes.add("warning", what)
        elif absent:
            what = f"classes without images in the {split} split: {listed(map(repr, absent))}"
            notes.add("warning", what)
