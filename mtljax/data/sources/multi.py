"""Two items in one image, with labels for each: Multi-MNIST and what is like it."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Int, Num

from mtljax.data.base import Arrays, Source, Split, Wanted
from mtljax.data.pipeline import resident
from mtljax.data.sources.arrays import moments

SIDES = ("left", "right")


def multi(
    first: str,
    second: str | None = None,
    canvas: int | None = None,
    images: int | None = None,
    seed: int = 0,
    *,
    wanted: Sequence[Wanted],
) -> Source:
    """Two items overlaid in one image; `left/LABEL` and `right/LABEL` are the labels of each.

    The left item is in the upper left corner of the canvas, the right one in the lower right, and
    where they overlap the brighter one is seen. A training image is made of two training items, a
    test image of two test items.

    Args:
      first: The source of the left items; in quotes where it has arguments of its own.
      second: The source of the right ones; the same if left out.
      canvas: Side of the new images in pixels; 9/7 of the items' if left out (28 -> 36).
      images: Number of training images; as many as there are training items if left out.
      seed: Of who is together with whom.
      wanted: What the tasks want.

    References:
      Sabour et al., 2017, arXiv:1710.09829; Sener & Koltun, 2018, arXiv:1810.04650; 28 -> 36 pixels
      as by Lin et al., 2019, arXiv:1912.12854
    """
    from mtljax.data.sources import make_source  # which has this one in its dict

    sides: dict[str, list[Wanted]] = {side: [] for side in SIDES}
    for task, key in wanted:
        side, _, own = key.partition("/")
        if side not in sides or not own:
            raise ValueError(
                f"source multi: task {task.name!r} wants label {key!r}; write left/... or "
                f"right/... in data.labels, as {{{task.name!r}: 'left/digit'}}"
            )
        sides[side].append(Wanted(task, own))
    left = make_source(first, sides["left"])
    right = make_source(second or first, sides["right"])
    return overlay(left, right, canvas=canvas, images=images, seed=seed)


def overlay(
    left: Source,
    right: Source,
    *,
    canvas: int | None = None,
    images: int | None = None,
    seed: int = 0,
) -> Source:
    """Two sources whose labels have different names, two items to an image; see `multi`.

    Raises:
      ValueError: The items do not go together, or do not fit on the canvas.
    """
    made = []
    names = ("train", "validation", "test")
    for number, name in enumerate(names):
        one, two = (_items(source, getattr(source, name), left) for source in (left, right))
        count = images if name == "train" and images is not None else len(one)
        rng = np.random.default_rng([seed, number])
        pairs = _cycle(rng, len(one), count), _cycle(rng, len(two), count)
        made.append(_compose(one, two, pairs, canvas))
    mean, std = moments(made[0].image)
    return Source(
        **dict(zip(names, made, strict=True)), mean=mean, std=std, low=left.low, high=left.high
    )


def _items(source: Source, split: Split, alike: Source) -> Arrays:
    """All of a split, in the unit of another source's images."""
    items = Arrays(**resident(split))
    if (source.low, source.high) == (alike.low, alike.high):
        return items
    share = (items.image.astype(np.float32) - source.low) / (source.high - source.low)
    image = share * (alike.high - alike.low) + alike.low
    like = np.asarray(alike.train[0]["image"]).dtype
    return Arrays(
        np.round(image).astype(like) if like.kind in "ui" else image.astype(like),
        items.labels,
        items.present,
    )


def _cycle(rng: np.random.Generator, size: int, count: int) -> Int[np.ndarray, " count"]:
    """`count` of `size` items in random order, none twice more often than another."""
    if count < 1:
        raise ValueError(f"source multi: images must be >= 1, not {count}")
    return np.concatenate([rng.permutation(size) for _ in range(-(-count // size))])[:count]


def _compose(one: Arrays, two: Arrays, pairs: tuple, canvas: int | None) -> Arrays:
    if one.image.shape[-1] != two.image.shape[-1]:
        raise ValueError(
            f"source multi: images of {one.image.shape[-1]} and {two.image.shape[-1]} channels"
        )
    largest = max(*one.image.shape[1:3], *two.image.shape[1:3])
    side = canvas or largest * 9 // 7
    if side < largest:
        raise ValueError(f"source multi: canvas must be >= {largest}, the items' side, not {side}")
    twice = set(one.labels) & set(two.labels)
    if twice:
        raise ValueError(f"source multi: both items have a label {min(twice)!r}")
    a, b = one.take(pairs[0]), two.take(pairs[1])
    return Arrays(
        _overlaid(a["image"], b["image"], side),
        {**a["labels"], **b["labels"]},
        {**a["present"], **b["present"]},
    )


def _overlaid(
    a: Num[np.ndarray, "N h w C"], b: Num[np.ndarray, "N h w C"], side: int
) -> Num[np.ndarray, "N side side C"]:
    made = np.full((len(a), side, side, a.shape[-1]), min(a.min(), b.min()), a.dtype)
    made[:, : a.shape[1], : a.shape[2]] = a
    corner = made[:, side - b.shape[1] :, side - b.shape[2] :]
    np.maximum(corner, b, out=corner)
    return made
