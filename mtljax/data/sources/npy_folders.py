"""Arrays in files, a folder for each kind of label: how NYUv2 and Cityscapes are passed around."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from mtljax.data.base import Source, Wanted
from mtljax.data.images import read_image, read_npy
from mtljax.data.reading import Examples, Raw, sampled_moments
from mtljax.data.sources.paths import find_folder
from mtljax.data.sources.size import read_size
from mtljax.utils.registry import nearest


def npy_folders(
    path: str,
    size: tuple[int, ...] | None = None,
    image: str = "image",
    validation: float = 0.1,
    seed: int = 0,
    *,
    wanted: Sequence[Wanted],
) -> Source:
    """`train/` and `val/`, in each a folder of `N.npy` for the image and for every label.

    The layout in which the authors of MTAN published NYUv2 and Cityscapes, and LibMTL after them:
    images [H, W, 3] from 0 to 1, `label` [H, W] with -1 where there is none, `depth` [H, W, 1] with
    0 where there is none, `normal` [H, W, 3] with 0 where there is none. A task's label is in the
    folder of its name, or where `data.labels` says.

    Args:
      path: The folder with `train` and `val` in it, here or in `$MTLJAX_DATA`.
      size: (height, width) that everything is brought to; as it is, if left out.
      image: Folder with the images.
      validation: Share of `train`, drawn at random, to choose checkpoints by; `val` is the test.
      seed: Of the draw.
      wanted: What the tasks want.

    References:
      Liu et al., 2019, arXiv:1803.10704
    """
    where = find_folder(path)
    brought_to = read_size(size, "npy_folders")
    if not 0 < validation < 1:
        raise ValueError(f"source npy_folders: validation must be in (0, 1), not {validation}")
    names = _names(where / "train", image, wanted)
    order = np.random.default_rng(seed).permutation(len(names))
    cut = len(names) - max(1, round(validation * len(names)))
    parts = {
        "train": (where / "train", [names[i] for i in np.sort(order[:cut])]),
        "validation": (where / "train", [names[i] for i in np.sort(order[cut:])]),
        "test": (where / "val", _names(where / "val", image, wanted)),
    }
    tasks = tuple(task for task, _ in wanted)
    made = {
        part: Examples(_Rows(folder, tuple(some), image, tuple(wanted)), tasks, brought_to)
        for part, (folder, some) in parts.items()
    }
    if not len(made["train"]):
        raise ValueError(f"{where / 'train'} has too few examples: {len(names)}")
    mean, std = sampled_moments(made["train"])
    return Source(**made, mean=mean, std=std, low=0.0, high=1.0)


def _names(folder: Path, image: str, wanted: Sequence[Wanted]) -> list[str]:
    """What the files of a split are called, in order.

    Raises:
      ValueError: A folder is not there, or lacks a file that another has.
    """
    if not folder.is_dir():
        raise ValueError(f"there is no folder {folder}")
    known = sorted(child.name for child in folder.iterdir() if child.is_dir())
    if image not in known:
        raise ValueError(f"{folder} has no folder {image!r} with the images{nearest(image, known)}")
    names = {file.name for file in (folder / image).glob("*.npy")}
    if not names:
        raise ValueError(f"{folder / image} has no .npy files")
    for task, key in wanted:
        if key not in known:
            raise ValueError(
                f"{folder} has no folder {key!r} for task {task.name!r}{nearest(key, known)}"
            )
        found = {file.name for file in (folder / key).glob("*.npy")}
        for here, there, lost in ((key, image, names - found), (image, key, found - names)):
            if lost:
                raise ValueError(f"{folder / here} lacks {min(lost)}, which {folder / there} has")
    return sorted(names, key=lambda name: (len(name), name))


@dataclasses.dataclass(frozen=True)
class _Rows:
    """Raw examples of one split."""

    folder: Path
    names: tuple[str, ...]
    image: str
    wanted: tuple[Wanted, ...]

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> Raw:
        name = self.names[index]
        try:
            image = read_image(self.folder / self.image / name, 3)
        except ValueError as error:
            raise ValueError(f"{self.folder / self.image / name}: {error}") from None
        return Raw(
            image,
            {task.name: self._read(key, name) for task, key in self.wanted},
            f"{self.folder} example {name}",
        )

    def _read(self, key: str, name: str) -> np.ndarray:
        try:
            return read_npy(self.folder / key / name)
        except ValueError as error:
            raise ValueError(f"{self.folder / key / name}: {error}") from None
