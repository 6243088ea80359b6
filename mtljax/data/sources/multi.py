"""Source of images with two items each, such as Multi-MNIST."""

import dataclasses
from collections.abc import Sequence

import numpy as np
from jaxtyping import Int, Num

from mtljax.data.base import Arrays, LabelRequest, Source, Split
from mtljax.data.files.jpeg import Decoder
from mtljax.data.pipeline import read_split
from mtljax.data.sources.arrays import source_of_arrays

SIDES = ("left", "right")
"""Positions of the two images."""


def multi(
    first: str,
    second: str | None = None,
    canvas: int | None = None,
    images: int | None = None,
    seed: int = 0,
    *,
    requests: Sequence[LabelRequest],
    decoder: Decoder = "turbo",
) -> Source:
    """Multi-MNIST and similar: two items in one image, labels `left/LABEL` and `right/LABEL`.

    The left item is in the upper left corner of the canvas, the right item in the lower right
    corner; where they overlap, the brighter pixel is used. Items of a training image are training
    items, items of a test image are test items.

    Args:
      first: Source of the left items, in quotes if it has arguments.
      second: Source of the right items; `first` if omitted.
      canvas: Side of the new images in pixels; 9/7 of the items' side if omitted (28 -> 36).
      images: Number of training images; the number of training items if omitted.
      seed: Seed of the pairing.

    References:
      Sabour et al., 2017, arXiv:1710.09829; Sener & Koltun, 2018, arXiv:1810.04650; 28 -> 36 pixels
      as by Lin et al., 2019, arXiv:1912.12854
    """
    from mtljax.data.sources import make_source  # not at the top: its dict has this function

    per_side: dict[str, list[LabelRequest]] = {side: [] for side in SIDES}
    for task, key in requests:
        side, _, label = key.partition("/")
        if side not in SIDES or not label:
            advice = (
                f"write left/... or right/... in data.labels, as {{{task.name!r}: 'left/digit'}}"
            )
            raise ValueError(f"source multi: task {task.name!r} requests label {key!r}; {advice}")
        per_side[side].append(LabelRequest(task, label))
    left = make_source(first, per_side["left"], decoder=decoder)
    right = make_source(second or first, per_side["right"], decoder=decoder)
    return overlay(left, right, canvas=canvas, images=images, seed=seed)


def overlay(
    left: Source,
    right: Source,
    *,
    canvas: int | None = None,
    images: int | None = None,
    seed: int = 0,
) -> Source:
    """Overlays two sources with different label names, but equal channels; see `multi`."""
    splits = []
    for number, (name, split) in enumerate(left.splits().items()):
        one, two = _items(left, split, left), _items(right, right.splits()[name], left)
        count = images if name == "train" and images is not None else len(one)
        rng = np.random.default_rng([seed, number])
        rows = _repeated_rows(rng, len(one), count), _repeated_rows(rng, len(two), count)
        splits.append(_compose(one, two, rows, canvas))
    source = source_of_arrays(*splits, low=left.low, high=left.high)
    return dataclasses.replace(source, fixed_splits="the images of a split of multi share items")


def _items(source: Source, split: Split, reference: Source) -> Arrays:
    """Returns an entire split, with images in the range and type of a reference source."""
    items = Arrays(**read_split(split))
    if (source.low, source.high) == (reference.low, reference.high):
        return items
    share = (items.image.astype(np.float32) - source.low) / (source.high - source.low)
    image = share * (reference.high - reference.low) + reference.low
    dtype = np.asarray(reference.train[0]["image"]).dtype
    image = np.round(image).astype(dtype) if dtype.kind in "ui" else image.astype(dtype)
    return Arrays(image, items.labels, items.present)


def _repeated_rows(rng: np.random.Generator, size: int, count: int) -> Int[np.ndarray, " count"]:
    """Returns `count` of `size` rows in random order, with frequencies that differ by at most 1."""
    if count < 1:
        raise ValueError(f"source multi: images must be >= 1, not {count}")
    return np.concatenate([rng.permutation(size) for _ in range(-(-count // size))])[:count]


def _compose(
    one: Arrays, two: Arrays, rows: tuple[np.ndarray, np.ndarray], canvas: int | None
) -> Arrays:
    channels = one.image.shape[-1], two.image.shape[-1]
    if channels[0] != channels[1]:
        raise ValueError(f"source multi: images of {channels[0]} and {channels[1]} channels")
    largest = max(*one.image.shape[1:3], *two.image.shape[1:3])
    side = canvas or largest * 9 // 7
    if side < largest:
        raise ValueError(f"source multi: canvas must be >= {largest}, the items' side, not {side}")
    shared = set(one.labels) & set(two.labels)
    if shared:
        raise ValueError(f"source multi: both items have a label {min(shared)!r}")
    a, b = one.take(rows[0]), two.take(rows[1])
    image = _overlaid(a["image"], b["image"], side)
    return Arrays(image, {**a["labels"], **b["labels"]}, {**a["present"], **b["present"]})


def _overlaid(
    a: Num[np.ndarray, "N h w C"], b: Num[np.ndarray, "N h w C"], side: int
) -> Num[np.ndarray, "N side side C"]:
    image = np.full((len(a), side, side, a.shape[-1]), min(a.min(), b.min()), a.dtype)
    image[:, : a.shape[1], : a.shape[2]] = a
    corner = image[:, side - b.shape[1] :, side - b.shape[2] :]
    np.maximum(corner, b, out=corner)
    return image
