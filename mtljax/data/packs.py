"""Packs: decoded, resized images, or the labels of a task, in memory-mapped files.

A pack is a folder with one `.npy` file per array, whose row i belongs to row i of a split, and a
file that lists the rows that are in none: those that cannot be read, and those of another shape.
"""

import dataclasses
import functools
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import jax
import numpy as np
from jaxtyping import Int, PyTree

from mtljax.data.base import Batch, ChangedSplit, Example
from mtljax.data.pipeline import stack
from mtljax.utils.bounded_reading import read_json, read_npy
from mtljax.utils.files import write_json

FORMAT_VERSION = 1
"""Version of the format; packs of other versions are written again."""
CONTENT = "content.json"
"""File of a pack with its number of rows, the rows that it lacks, and notes; written last."""
IMAGE = ""
"""Name of the part with the images; other parts are named after their tasks."""


@dataclasses.dataclass(frozen=True)
class Pack:
    """Arrays of all rows of a split, read on access."""

    folder: Path
    """Folder of the arrays."""
    missing: frozenset[int]
    """Rows that are not in the arrays."""
    notes: tuple[tuple[int, str, str, int], ...]
    """Changes of labels: (row, kind, what, count); see `mtljax.tasks.base.Changes`."""
    num_arrays: int
    """Number of arrays of an example."""

    @functools.cached_property
    def arrays(self) -> tuple[np.ndarray, ...]:
        """Memory-mapped arrays.

        Raises:
          ValueError: They cannot be read any more.
        """
        try:
            return tuple(read_npy(self.folder / f"{i}.npy") for i in range(self.num_arrays))
        except OSError as error:
            raise ValueError(
                f"{self.folder}, the cached examples of this run, cannot be read: "
                f"{error.strerror}; start the run again"
            ) from None

    def __getstate__(self) -> dict[str, Any]:
        """Returns the fields without the arrays, which each process maps itself."""
        return {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}


def part_of(example: Batch, name: str) -> PyTree:
    """Returns the image of an example or batch, or a task's label with its mark of presence."""
    if name == IMAGE:
        return example["image"]
    return example["labels"][name], example["present"][name]


def open_pack(folder: Path, rows: int) -> Pack | None:
    """Returns the pack in a folder, None if there is none, or one that is damaged."""
    try:
        content = read_json(folder / CONTENT)
        if (content["format_version"], content["rows"]) != (FORMAT_VERSION, rows):
            return None
        notes = tuple((int(r), str(k), str(w), int(n)) for r, k, w, n in content["notes"])
        shapes = [(tuple(shape), dtype) for shape, dtype in content["arrays"]]
        pack = Pack(folder, frozenset(content["missing"]), notes, len(shapes))
        if [(array.shape, array.dtype.str) for array in pack.arrays] != shapes:
            return None
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return pack


@dataclasses.dataclass(frozen=True)
class PackedSplit(ChangedSplit):
    """Split whose examples are read from packs; rows that a pack lacks are read from `split`."""

    packs: Mapping[str, Pack]
    """Pack of the images and of each task."""
    structure: PyTree
    """Parts of a batch by name, with the index of each array in its pack."""

    @functools.cached_property
    def missing(self) -> frozenset[int]:
        """Rows that some pack lacks."""
        return frozenset().union(*(pack.missing for pack in self.packs.values()))

    def __getitem__(self, index: int) -> Example:
        row = range(len(self))[index]
        if row in self.missing:
            return self.split[row]
        return jax.tree.map(lambda x: x[0], self._gather(np.asarray([row])))

    def take(self, rows: Int[np.ndarray, " n"]) -> Batch:
        """Returns the examples at `rows`, in their order."""
        if self.missing and not self.missing.isdisjoint(rows.tolist()):
            return stack([self[int(row)] for row in rows])
        return self._gather(rows)

    def _gather(self, rows: Int[np.ndarray, " n"]) -> Batch:
        parts = {
            name: jax.tree.map(lambda i, pack=self.packs[name]: pack.arrays[i][rows], structure)
            for name, structure in self.structure.items()
        }
        tasks = [name for name in parts if name != IMAGE]
        labels = {name: parts[name][0] for name in tasks}
        present = {name: parts[name][1] for name in tasks}
        return {"image": parts[IMAGE], "labels": labels, "present": present}


def structure_of(example: Example, names: Iterable[str]) -> PyTree:
    """Returns `PackedSplit.structure`."""
    parts = {name: part_of(example, name) for name in names}
    numbered = lambda part: jax.tree.unflatten(
        jax.tree.structure(part), range(len(jax.tree.leaves(part)))
    )
    return {name: numbered(part) for name, part in parts.items()}


def num_bytes(example: Example, name: str) -> int:
    """Returns the size of one row of a pack."""
    return sum(np.asarray(leaf).nbytes for leaf in jax.tree.leaves(part_of(example, name)))


class PackWriter:
    """Writer of a pack, row by row."""

    def __init__(self, folder: Path, name: str, example: Example, rows: int) -> None:
        """Starts a pack of examples with the shapes and types of `example` in an empty folder."""
        self._folder, self._name, self._rows = folder, name, rows
        self._blank = jax.tree.map(np.asarray, part_of(example, name))
        self._missing: list[int] = []
        self._files: list[BinaryIO] = []
        self._written = 0

    def __enter__(self) -> "PackWriter":
        self._folder.mkdir(mode=0o700)
        for i, leaf in enumerate(jax.tree.leaves(self._blank)):
            file = (self._folder / f"{i}.npy").open("xb")
            self._files.append(file)
            header = np.lib.format.header_data_from_array_1_0(np.empty(0, leaf.dtype))
            header["shape"] = (self._rows, *leaf.shape)
            np.lib.format.write_array_header_1_0(file, header)
        return self

    def __exit__(self, *error: object) -> None:
        for file in self._files:
            file.close()

    def add(self, example: Example | ValueError) -> None:
        """Adds the next row: an example, or the error of one that cannot be read."""
        part = None if isinstance(example, ValueError) else part_of(example, self._name)
        part = part if part is None else jax.tree.map(np.asarray, part)
        if part is None or not _is_alike(part, self._blank):
            self._missing.append(self._written)
            part = jax.tree.map(np.zeros_like, self._blank)
        for file, leaf in zip(self._files, jax.tree.leaves(part), strict=True):
            file.write(np.ascontiguousarray(leaf).data)
        self._written += 1

    def finish(self, notes: Sequence[tuple[int, str, str, int]]) -> None:
        """Completes the pack; waits until it is on the disk."""
        for file in self._files:
            file.flush()
            os.fsync(file.fileno())
        leaves = jax.tree.leaves(self._blank)
        content = {
            "format_version": FORMAT_VERSION,
            "rows": self._rows,
            "arrays": [((self._rows, *leaf.shape), leaf.dtype.str) for leaf in leaves],
            "missing": self._missing,
            "notes": notes,
        }
        write_json(self._folder / CONTENT, content)


def _is_alike(part: PyTree, other: PyTree) -> bool:
    """True if two trees have the same structure, shapes and types."""
    kinds = lambda tree: jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), tree)
    return kinds(part) == kinds(other)
