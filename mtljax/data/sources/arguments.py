"""Arguments that several sources share: folders, image sizes and validation shares."""

import os
from pathlib import Path

import numpy as np
from jaxtyping import Int

from mtljax.tasks.warps import Pixels

VARIABLE = "MTLJAX_DATA"
"""Environment variable with the folder that relative paths are also searched in."""


def find_folder(path: str) -> Path:
    """Returns a folder, relative to the working directory or to `$MTLJAX_DATA`."""
    root, given = os.environ.get(VARIABLE), Path(path).expanduser()
    candidates = [given, Path(root) / given] if root else [given]
    for folder in candidates:
        if folder.is_dir():
            return folder
    is_final = root or given.is_absolute()
    hint = "" if is_final else f" (or set {VARIABLE} to the folder that contains it)"
    raise ValueError(f"there is no folder {' nor '.join(map(str, candidates))}{hint}")


def read_size(size: tuple[int, ...] | None, source: str) -> Pixels | None:
    """Returns a source's argument `size`; None keeps the size of the images."""
    if size is None:
        return None
    if len(size) != 2 or min(size) < 1:
        raise ValueError(f"source {source}: size must be (height, width), not {size}")
    return size[0], size[1]


def hold_out(
    count: int, share: float, seed: int, source: str
) -> tuple[Int[np.ndarray, " train"], Int[np.ndarray, " validation"]]:
    """Returns random rows for training and, at least one, for validation."""
    if not 0 < share < 1:
        raise ValueError(f"source {source}: validation must be in (0, 1), not {share}")
    order = np.random.default_rng(seed).permutation(count)
    cut = count - max(1, round(share * count))
    return np.sort(order[:cut]), np.sort(order[cut:])
