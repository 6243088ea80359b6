"""Detection of unreadable, out-of-range and duplicate images; every example is read once."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Float, Num

from mtljax.data.base import Source
from mtljax.data.pipeline import READER_THREADS
from mtljax.data.pool import ExampleId, Pool, image_digest, pool_of
from mtljax.screening.findings import Finding
from mtljax.tasks import Task

THUMBNAIL_SIDE = 16
"""Height and width to which larger images are reduced for comparison."""
MIN_CORRELATION = 0.995
"""Correlation above which two images differ by noise or compression only. The two most similar of
the 1,797 digits of scikit-learn, 8 x 8 pixels each, have 0.992."""
FENCE = 3.0
"""Interquartile ranges between the quartiles and Tukey's outer fence, which extremes exceed."""
SLACK = 0.05
"""Tolerance outside black..white, as a fraction of their range: some sources define white as the
maximum of the training images, and other images may be slightly brighter."""
BLOCK = 2048
"""Images compared at once."""


class ImageSummary(NamedTuple):
    """Properties of a valid example that later checks need."""

    place: ExampleId
    thumbnail: Float[np.ndarray, " n"]
    """Reduced image, centered, of norm 1; zeros for a constant image."""
    low: float
    high: float
    digest: str
    size: tuple[int, ...]
    is_integer: bool
    """True if pixels are integers, which cannot be outside black..white."""


def summarize_images(
    source: Source, tasks: Sequence[Task]
) -> tuple[list[ImageSummary], list[Finding]]:
    """Reads all examples and returns the summaries of valid ones and findings about broken ones."""
    pool = pool_of(source)
    summaries: list[ImageSummary] = []
    findings: list[Finding] = []
    with ThreadPoolExecutor(READER_THREADS) as threads:
        for result in threads.map(lambda i: _summarize(pool, i, tasks), range(len(pool))):
            if isinstance(result, Finding):
                findings.append(result)
            else:
                summaries.append(result)
    extremes = list(_find_extremes(summaries, source))
    broken = {finding.place for finding in extremes}
    return [summary for summary in summaries if summary.place not in broken], findings + extremes


def _summarize(pool: Pool, index: int, tasks: Sequence[Task]) -> ImageSummary | Finding:
    place = pool.places[index]
    try:
        example = pool[index]
        for task in tasks:
            if example["present"][task.name]:
                label = jax.tree.map(lambda x: np.asarray(x)[None], example["labels"][task.name])
                task.check(label)
    except Exception as error:  # sources may raise any exception
        reason = " ".join(str(error).split()) or type(error).__name__
        return Finding(place, "unreadable", reason)
    image = np.asarray(example["image"])
    if not np.isfinite(image).all():
        count = int((~np.isfinite(image)).sum())
        return Finding(place, "not finite", f"{count} of {image.size} values")
    return ImageSummary(
        place=place,
        thumbnail=_thumbnail(image),
        low=float(image.min()),
        high=float(image.max()),
        digest=image_digest(image),
        size=tuple(image.shape),
        is_integer=image.dtype.kind in "iub",
    )


def _thumbnail(image: Num[np.ndarray, "H W C"]) -> Float[np.ndarray, " n"]:
    sides = image.shape[:2]
    rows, columns = (np.linspace(0, n, min(n, THUMBNAIL_SIDE) + 1).astype(int) for n in sides)
    sums = np.add.reduceat(np.add.reduceat(image.astype(np.float64), rows[:-1], 0), columns[:-1], 1)
    means = sums / (np.diff(rows)[:, None, None] * np.diff(columns)[None, :, None])
    # Every thumbnail has the same length, so images of different sizes can be compared.
    indices = [np.arange(THUMBNAIL_SIDE) * n // THUMBNAIL_SIDE for n in means.shape[:2]]
    flat = means[np.ix_(*indices)].ravel()
    flat = flat - flat.mean()
    norm = np.linalg.norm(flat)
    return (flat / norm if norm > 1e-9 else 0 * flat).astype(np.float32)


def _find_extremes(summaries: Sequence[ImageSummary], source: Source) -> Iterator[Finding]:
    """Finds images outside black..white, or far outside the range of the other images.

    The second rule is needed where white is the maximum of the data: one extreme pixel would define
    white.
    """
    if not summaries:
        return
    highs, lows = np.array([s.high for s in summaries]), np.array([s.low for s in summaries])
    (q1, q2, q3), (r1, r2, r3) = (np.quantile(x, (0.25, 0.5, 0.75)) for x in (highs, lows))
    spread, slack = 0.2 * max(q2 - r2, 1e-6), SLACK * (source.high - source.low)
    top = min(q3 + FENCE * max(q3 - q1, spread), source.high + slack)
    bottom = max(r1 - FENCE * max(r3 - r1, spread), source.low - slack)
    for image in summaries:
        if not image.is_integer and (image.high > max(top, q2) or image.low < min(bottom, r2)):
            yield Finding(
                image.place,
                "out of range",
                f"values {image.low:.4g} .. {image.high:.4g}; typical are {r2:.4g} .. {q2:.4g}",
            )


def find_duplicates(summaries: Sequence[ImageSummary]) -> Iterator[Finding]:
    """Finds images that occur twice within a split (duplicates) or in two splits (leaks).

    The first of a split's duplicates is retained. Of a leak, the example of the test split is
    retained before that of the validation split and that of the training split.
    """
    priority = {"test": 0, "validation": 1, "train": 2}
    ranked = sorted(summaries, key=lambda s: (priority.get(s.place.split, 3), s.place.row))
    if not ranked:
        return
    thumbnails = np.stack([summary.thumbnail for summary in ranked])
    first: dict[str, int] = {}
    for start in range(0, len(ranked), BLOCK):
        block = thumbnails[start : start + BLOCK]
        similar = np.full(len(block), -1)
        for earlier in range(0, start + 1, BLOCK):
            scores = block @ thumbnails[earlier : earlier + BLOCK].T
            columns = np.arange(earlier, earlier + scores.shape[1])
            scores[columns[None, :] >= np.arange(start, start + len(block))[:, None]] = -1
            best = scores.argmax(1)
            match = (scores[np.arange(len(block)), best] >= MIN_CORRELATION) & (similar < 0)
            similar[match] = columns[best[match]]
        for i, image in enumerate(ranked[start : start + BLOCK], start):
            same = first.setdefault(image.digest, i)
            other = same if same < i else int(similar[i - start])
            if other < 0 or ranked[other].size != image.size and same == i:
                continue
            like = ranked[other].place
            kind = "duplicate" if like.split == image.place.split else "leak"
            detail = f"{'identical to' if same < i else 'nearly identical to'} {like}"
            yield Finding(image.place, kind, detail, like)
