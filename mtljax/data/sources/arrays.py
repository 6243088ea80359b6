"""Source of images and labels in memory, or in an `.npz` file."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jaxtyping import Num, PyTree

from mtljax.data import splitting
from mtljax.data.array_labels import plain_labels
from mtljax.data.base import Arrays, Source
from mtljax.data.membership import Membership, members_of_table
from mtljax.data.notes import NoteCounter
from mtljax.data.tables.table import Row
from mtljax.utils.bounded_reading import read_npz
from mtljax.utils.registry import nearest
from mtljax.utils.text import first_line, form
from mtljax.utils.tree import flatten, num_examples


def arrays(
    file: str,
    validation: float = 0.1,
    test: float = 0.2,
    seed: int = 0,
    group: str | None = None,
    stratify: str | None = None,
) -> Source:
    """NumPy arrays in an `.npz` file: `image` [N, H, W, C] and one array per label.

    For the split see `from_arrays`.

    Args:
      file: File written by `np.savez(file, image=..., digit=...)`.
      group, stratify: Names of arrays [N] with the group and the class of each image.
    """
    path = Path(file).expanduser()
    try:
        labels = read_npz(path)
    except FileNotFoundError:
        raise ValueError(f"there is no file {path}") from None
    except (OSError, ValueError) as error:
        raise ValueError(
            f"{path} is not an .npz file of plain arrays: {first_line(error)}"
        ) from None
    if "image" not in labels:
        raise ValueError(f"{path} has no array 'image'; it has {', '.join(labels) or 'no arrays'}")
    image = labels.pop("image")
    columns: dict[str, Any] = {}
    for argument, name in (("group", group), ("stratify", stratify)):
        if name is not None and name not in labels:
            raise ValueError(
                f"{path} has no array {name!r} for {argument}={name}{nearest(name, labels)}"
            )
        columns[argument] = None if name is None else labels[name]
    return from_arrays(image, labels, validation=validation, test=test, seed=seed, **columns)


def from_arrays(
    image: PyTree[Num[np.ndarray, "N ..."]],
    labels: Mapping[str, Any],
    present: Mapping[str, np.ndarray] | None = None,
    *,
    validation: float = 0.1,
    test: float = 0.2,
    seed: int = 0,
    group: Any = None,
    stratify: Any = None,
) -> Source:
    """Returns a source of arrays in memory, split at random.

    Args:
      image: Images [N, H, W, C] or clips [N, T, H, W, C]. Black is 0; white is the largest value of
        an unsigned integer type, and the largest training value of another type. Or a dict (or
        NamedTuple) of arrays [N, ...], for a custom model that takes one: statistics, black
        and white are then those of each array.
      labels: Name -> labels with the examples along the first axis: numbers, or names of classes.
        None is a missing label.
      present: Name -> [N] bool, True for examples that carry the label; default: all.
      validation, test: Share of these examples.
      seed: Seed of the split.
      group: Group [N] of each example, such as a patient: all of a group are in one split or fold.
      stratify: Class [N] of each example that each split and fold has in proportion.

    Raises:
      ValueError: The arrays have different lengths, a group is missing, or a split is empty.

    Example:
      >>> image = np.zeros((10, 4, 4, 1), np.uint8)
      >>> source = from_arrays(image, {"digit": np.arange(10)})
      >>> len(source.train), len(source.validation), len(source.test)
      (7, 1, 2)
    """
    image = _as_inputs(image)
    count, dtypes = num_examples(image), jax.tree.map(lambda x: x.dtype, image)
    image = jax.tree.map(_as_float if hasattr(image, "ndim") else _in_32_bits, image)
    notes = NoteCounter()
    plain = {name: plain_labels(name, label, notes) for name, label in labels.items()}
    labels = {name: label for name, (label, _) in plain.items()}
    masks = {name: mask for name, (_, mask) in plain.items()}
    for name, mask in (present or {}).items():
        mask = np.asarray(mask, bool)
        masks[name] = mask & masks[name] if mask.shape == masks.get(name, mask).shape else mask
    leaves = [(name, leaf) for name, label in labels.items() for leaf in jax.tree.leaves(label)]
    for name, leaf in [*leaves, *masks.items()]:
        if len(leaf) != count:
            raise ValueError(f"{len(leaf)} labels {name!r} for {count} images")

    members = _members(count, group, stratify)
    _note_channels_first(image, notes)
    splits = []
    for rows in _rows_of_splits(count, members, validation, test, seed, notes):
        of_split = tuple(members[row] for row in rows) if members else ()
        select = lambda tree, rows=rows: jax.tree.map(lambda x: x[rows], tree)
        splits.append(Arrays(select(image), select(labels), select(masks), members=of_split))
    high = jax.tree.map(_white, splits[0].image, dtypes)
    source = source_of_arrays(*splits, low=jax.tree.map(lambda _: 0.0, dtypes), high=high)
    return dataclasses.replace(source, notes=notes.notes())


def _rows_of_splits(
    count: int,
    members: Sequence[Membership],
    validation: float,
    test: float,
    seed: int,
    notes: NoteCounter,
) -> list[np.ndarray]:
    """Returns the rows of each split, in ascending order."""
    if not members:
        order = np.random.default_rng(seed).permutation(count)
        return [np.sort(rows) for rows in split_rows(order, validation, test)]
    names = list(map(str, range(count)))
    parts = splitting.split_rows(names, members, validation, test, seed, notes)
    if not all(parts.values()):
        raise _cannot_split(count, validation, test)
    return [np.array(parts[name], int) for name in splitting.SPLITS]


def _members(count: int, group: Any, stratify: Any) -> list[Membership]:
    """Returns the group and the stratum of each example; an empty list without both."""
    columns = {"group": group, "stratify": stratify}
    columns = {name: np.asarray(x) for name, x in columns.items() if x is not None}
    for name, column in columns.items():
        if column.shape != (count,):
            raise ValueError(f"{name} has the shape {column.shape}; must be ({count},)")
    if not columns:
        return []
    file = Path("arrays")
    rows = [Row(i, {name: x[i] for name, x in columns.items()}, file) for i in range(count)]
    names = (name if name in columns else None for name in ("group", "stratify"))
    return members_of_table("the arrays", rows, *names)


def _as_inputs(image: Any) -> PyTree[np.ndarray]:
    """Returns an array of images, or a pytree of arrays; raises ValueError for other types."""
    is_tree = isinstance(image, Mapping) or hasattr(image, "_fields")
    try:
        image = jax.tree.map(np.asarray, dict(image) if isinstance(image, Mapping) else image)
        image = image if is_tree else np.asarray(image)
    except ValueError:
        raise ValueError(
            "images of different shapes; must be one array [N, H, W, C], or a dict of arrays"
        ) from None
    leaves = flatten(image) if is_tree else {"": image}
    count = len(next(iter(leaves.values()), ()))
    for name, leaf in leaves.items():
        if leaf.dtype.kind not in "uifb" or (not is_tree and leaf.ndim not in (4, 5)):
            rule = "[N, ...]" if is_tree else "[N, H, W, C], or clips [N, T, H, W, C], of"
            place = f"images {name!r}" if name else "images"
            raise ValueError(f"{place} of {form(leaf)}; must be {rule} numbers")
        if leaf.dtype.kind == "f" and not np.isfinite(leaf).all():
            row = next(i for i, x in enumerate(leaf) if not np.isfinite(x).all())
            what = f"input {name!r} of example {row}" if name else f"image {row}"
            raise ValueError(f"{what} has values that are NaN or infinite")
        if not leaf.ndim or len(leaf) != count:
            sizes = ", ".join(f"{key} {np.shape(x)}" for key, x in leaves.items())
            raise ValueError(f"the inputs have different numbers of examples: {sizes}")
    if not count:
        raise ValueError("there are no images")
    return image


def _note_channels_first(image: Any, notes: NoteCounter) -> None:
    """Notes images of 1 to 4 rows that may have their channels first."""
    shape: tuple[int, ...] = np.shape(image)[1:] if hasattr(image, "ndim") else ()
    if len(shape) == 3 and shape[0] <= 4 < shape[2] and shape[1] > 4:
        height, width, channels = shape
        size = f"images of {height} x {width} pixels with {channels} channels"
        notes.add("warning", f"{size}; if the channels are first, use image.transpose(0, 2, 3, 1)")


def _as_float(image: np.ndarray) -> np.ndarray:
    return image if image.dtype == np.uint8 else image.astype(np.float32)


def _in_32_bits(x: np.ndarray) -> np.ndarray:
    """Returns an input that may be no image, such as class indices, in a type that JAX has."""
    narrow = {np.dtype(np.float64): np.float32, np.dtype(np.int64): np.int32}
    return x.astype(narrow.get(x.dtype, x.dtype))


def _white(image: np.ndarray, dtype: np.dtype) -> float:
    """Returns the value of white: the maximum of an unsigned type, else the largest value."""
    return float(np.iinfo(dtype).max if dtype.kind == "u" else image.max())


def source_of_arrays(
    train: Arrays, validation: Arrays, test: Arrays, *, low: float, high: float
) -> Source:
    """Returns a source of splits in memory; a constant channel has standard deviation 1."""
    mean, std = (jax.tree.map(lambda x, f=f: _moment(x, f), train.image) for f in (np.mean, np.std))
    std = jax.tree.map(lambda s: s if s > 0 else 1.0, std)
    return Source(
        train=train,
        validation=validation,
        test=test,
        mean=mean,
        std=std,
        low=low,
        high=high,
    )


def _moment(x: np.ndarray, moment: Callable[..., Any]) -> float | tuple[float, ...]:
    """Returns the mean or standard deviation of each channel, or of an array of numbers."""
    axes = tuple(range(x.ndim - 1)) or (0,)
    value = np.asarray(moment(x, axes, dtype=np.float64))
    return tuple(map(float, value)) if value.ndim else float(value)


def split_rows(order: np.ndarray, validation: float, test: float) -> list[np.ndarray]:
    """Cuts rows into training, validation and test."""
    counts = [round(len(order) * share) for share in (validation, test)]
    if not all(c > 0 for c in counts) or sum(counts) >= len(order):
        raise _cannot_split(len(order), validation, test)
    return np.split(order, [len(order) - sum(counts), len(order) - counts[1]])


def _cannot_split(count: int, validation: float, test: float) -> ValueError:
    shares = f"validation={validation}, test={test} and training examples"
    rule = "each split needs at least one"
    return ValueError(f"{count} examples cannot be split into {shares}: {rule}")
