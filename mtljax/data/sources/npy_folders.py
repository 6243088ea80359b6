"""Source of npy files, with a folder per label: the published layout of NYUv2 and Cityscapes."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from mtljax.data.base import LabelRequest, Source, require_labels
from mtljax.data.files.images import read_image, read_npy
from mtljax.data.fingerprints import fingerprint
from mtljax.data.lazy import LazySplit, RawExample, source_of_splits, tasks_of
from mtljax.data.packs import IMAGE
from mtljax.data.sources.arguments import find_folder, hold_out, read_size
from mtljax.tasks.warps import Pixels
from mtljax.utils.registry import nearest
from mtljax.utils.text import error_prefix


def npy_folders(
    path: str,
    size: tuple[int, ...] | None = None,
    image: str = "image",
    validation: float = 0.1,
    seed: int = 0,
    *,
    requests: Sequence[LabelRequest],
) -> Source:
    """NYUv2 and Cityscapes as published: `train/` and `val/` with a folder of npy files per label.

    The layout of the authors of MTAN, also used by LibMTL: each folder has `0.npy`, `1.npy`, ...:
    images [H, W, 3] in 0..1, `label` [H, W] with -1 for missing, `depth` [H, W, 1] with 0 for
    missing, `normal` [H, W, 3] with 0 for missing. A task's label is in the folder of the task's
    name, or in the folder set in `data.labels`.

    Args:
      path: Folder with `train` and `val`, relative to the working directory or `$MTLJAX_DATA`.
      size: (height, width) to resize images and labels to; unchanged if omitted.
      image: Folder of the images.
      validation: Share of `train` used to select checkpoints; `val` is the test split.
      seed: Seed of that draw.

    References:
      Liu et al., 2019, arXiv:1803.10704
    """
    root = find_folder(path)
    new_size = read_size(size, "npy_folders")
    names = _file_names(root / "train", image, requests)
    train, held_out = hold_out(len(names), validation, seed, "npy_folders")
    if not len(train):
        raise ValueError(f"{root / 'train'} has too few examples: {len(names)}")

    def split(folder: str, names: Sequence[str]) -> LazySplit:
        examples = _NpyExamples(root / folder, tuple(names), image, tuple(requests), new_size)
        return LazySplit(examples, tasks_of(requests), new_size)

    splits = {
        "train": split("train", [names[i] for i in train]),
        "validation": split("train", [names[i] for i in held_out]),
        "test": split("val", _file_names(root / "val", image, requests)),
    }
    return source_of_splits(splits, 0.0, 1.0, tasks_of(requests))


def _file_names(folder: Path, image: str, requests: Sequence[LabelRequest]) -> list[str]:
    """Returns the file names of a split, in order, after a check that all folders have them."""
    if not folder.is_dir():
        raise ValueError(f"there is no folder {folder}")
    folders = sorted(child.name for child in folder.iterdir() if child.is_dir())
    if image not in folders:
        hint = nearest(image, folders)
        raise ValueError(f"{folder} has no folder {image!r} with the images{hint}")
    require_labels(str(folder), requests, folders, noun="folder")
    names = {file.name for file in (folder / image).glob("*.npy")}
    if not names:
        raise ValueError(f"{folder / image} has no .npy files")
    for _, key in requests:
        labels = {file.name for file in (folder / key).glob("*.npy")}
        for one, other, missing in ((key, image, names - labels), (image, key, labels - names)):
            if missing:
                raise ValueError(f"{folder / one} lacks {min(missing)}, which {folder / other} has")
    return sorted(names, key=lambda name: (len(name), name))


@dataclasses.dataclass(frozen=True)
class _NpyExamples:
    """Raw examples of one split."""

    folder: Path
    names: tuple[str, ...]
    image: str
    requests: tuple[LabelRequest, ...]
    size: Pixels | None

    def __len__(self) -> int:
        return len(self.names)

    def identity(self) -> dict[str, str]:
        """Returns hashes of what the images, and each task's labels, depend on; see `cache`."""
        files = lambda key: [self.folder / key / name for name in self.names]
        image = fingerprint(files(self.image), self.size)
        labels = {task.name: fingerprint(image, task, files(key)) for task, key in self.requests}
        return {IMAGE: image, **labels}

    def place(self, index: int) -> str:
        """Returns the folder and file of an example."""
        return f"{self.folder} example {self.names[index]}"

    def __getitem__(self, index: int) -> RawExample:
        name = self.names[index]
        file = self.folder / self.image / name
        with error_prefix(file):
            image = read_image(file, 3)
        labels = {task.name: self._label(key, name) for task, key in self.requests}
        return RawExample(image, labels, self.place(index))

    def _label(self, key: str, name: str) -> np.ndarray:
        file = self.folder / key / name
        with error_prefix(file):
            return read_npy(file)
