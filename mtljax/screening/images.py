"""Detection of unreadable, out-of-range and duplicate images; every example is read once."""

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Float, Num

from mtljax.data.base import Source, place_of
from mtljax.data.pipeline import READER_THREADS
from mtljax.data.pool import ExampleId, Pool, image_digest, pool_of
from mtljax.screening.findings import Finding
from mtljax.tasks import Task
from mtljax.utils.text import one_line

THUMBNAIL_SIDE = 16
"""Height and width to which larger images are reduced for comparison."""
MIN_CORRELATION = 0.995
"""Correlation above which two images differ by noise or compression only. The two most similar of
the 1,797 digits of scikit-learn, 8 x 8 pixels each, have 0.992."""
MAX_DIFFERENCE = 0.09
"""Difference of a cell's mean color up to which two images differ by noise or compression only, as
a fraction of the range from black to white. Of copies of photos (JPEG of quality 30 to 95, noise of
2 to 5 %) with the correlation above, 94 % differ by less, also those of 32 pixels. The same object
in another color on white, with that correlation (black and gray, brown and olive), differs by 0.10
to 0.35."""
CANDIDATES = 5
"""Number of the most similar images whose colors are compared."""
SMALL_LABEL = 64
"""Maximum number of values of labels that are compared between duplicates."""
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
    """The example."""
    thumbnail: Float[np.ndarray, " n"]
    """Reduced image, centered, of norm 1; zeros for a constant image."""
    mean: float
    """Mean of the reduced image."""
    norm: float
    """Norm of the centered reduced image."""
    low: float
    """Smallest pixel."""
    high: float
    """Largest pixel."""
    digest: str
    """Hash of the pixels."""
    size: tuple[int, ...]
    """Shape of the image."""
    is_integer: bool
    """True if pixels are integers, which cannot be outside black..white."""
    labels: Mapping[str, np.ndarray]
    """Task -> label, of tasks with small labels and where it is not missing."""

    def colors(self) -> Float[np.ndarray, " n"]:
        """Returns the reduced image."""
        return self.thumbnail * self.norm + self.mean


def summarize_images(
    source: Source, tasks: Sequence[Task]
) -> tuple[list[ImageSummary], list[Finding]]:
    """Reads all examples and returns the summaries of valid ones and findings about broken ones."""
    pool = pool_of(source)
    summaries: list[ImageSummary] = []
    findings: list[Finding] = []
    with ThreadPoolExecutor(READER_THREADS) as threads:
        for result in threads.map(lambda i: summarize_example(pool, i, tasks), range(len(pool))):
            if isinstance(result, Finding):
                findings.append(result)
            else:
                summaries.append(result)
    extremes = list(_find_extremes(summaries, source))
    broken = {finding.place for finding in extremes}
    return [summary for summary in summaries if summary.place not in broken], findings + extremes


def summarize_example(pool: Pool, index: int, tasks: Sequence[Task]) -> ImageSummary | Finding:
    """Reads one example and returns its summary, or a finding if it is broken."""
    place = pool.places[index]
    try:
        example = pool[index]
        for task in tasks:
            if example["present"][task.name]:
                label = jax.tree.map(lambda x: np.asarray(x)[None], example["labels"][task.name])
                task.check(label)
    except Exception as error:  # sources may raise any exception
        reason = one_line(error)
        return Finding(place, "unreadable", reason)
    image = np.asarray(example["image"])
    if not np.isfinite(image).all():
        count = int((~np.isfinite(image)).sum())
        return Finding(place, "not finite", f"{count} of {image.size} values")
    thumbnail, mean, norm = _thumbnail(image)
    return ImageSummary(
        place=place,
        thumbnail=thumbnail,
        mean=mean,
        norm=norm,
        low=float(image.min()),
        high=float(image.max()),
        digest=image_digest(image),
        size=tuple(image.shape),
        is_integer=image.dtype.kind in "iub",
        labels={
            task.name: label
            for task in tasks
            if example["present"][task.name]
            and len(jax.tree.leaves(example["labels"][task.name])) == 1
            and (label := np.asarray(jax.tree.leaves(example["labels"][task.name])[0])).size
            <= SMALL_LABEL
        },
    )


def _thumbnail(
    image: Num[np.ndarray, "H W C"],
) -> tuple[Float[np.ndarray, " n"], float, float]:
    """Returns the reduced image, centered and of norm 1, its mean and its norm."""
    sides = image.shape[:2]
    rows, columns = (np.linspace(0, n, min(n, THUMBNAIL_SIDE) + 1).astype(int) for n in sides)
    sums = np.add.reduceat(np.add.reduceat(image.astype(np.float64), rows[:-1], 0), columns[:-1], 1)
    means = sums / (np.diff(rows)[:, None, None] * np.diff(columns)[None, :, None])
    # Every thumbnail has the same length, so images of different sizes can be compared.
    indices = [np.arange(THUMBNAIL_SIDE) * n // THUMBNAIL_SIDE for n in means.shape[:2]]
    flat = means[np.ix_(*indices)].ravel()
    mean = float(flat.mean())
    flat = flat - mean
    norm = float(np.linalg.norm(flat))
    return (flat / norm if norm > 1e-9 else 0 * flat).astype(np.float32), mean, norm


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


def find_duplicates(summaries: Sequence[ImageSummary], source: Source) -> Iterator[Finding]:
    """Finds images that occur twice within a split (duplicates) or in two splits (leaks).

    The first of a split's duplicates is retained. Of a leak, the example of the test split is
    retained before that of the validation split and that of the training split. An image that is
    nearly identical to another of its split, and has the same labels, is a note.
    """
    priority = {"test": 0, "validation": 1, "train": 2}
    ranked = sorted(summaries, key=lambda s: (priority.get(s.place.split, 3), s.place.row))
    if not ranked:
        return
    splits = source.splits()
    file = lambda place: place_of(splits[place.split], place.row)
    similar = _most_similar(ranked, source.high - source.low)
    spreads = _spreads(ranked)
    first: dict[str, int] = {}
    for i, image in enumerate(ranked):
        identical = first.setdefault(image.digest, i)
        other = identical if identical < i else similar[i]
        if other < 0 or ranked[other].size != image.size:
            continue
        like = ranked[other]
        if file(image.place) and file(image.place) == file(like.place):
            continue  # one example, which a source repeats, such as `join` with proportions
        differing = _differing_labels(image, like, spreads)
        kind = "leak"
        if like.place.split == image.place.split:
            kind = "duplicate" if identical < i or differing else "similar"
        detail = f"{'identical to' if identical < i else 'nearly identical to'} {like.place}"
        if differing:
            detail += f", with another label of {', '.join(differing)}"
        yield Finding(image.place, kind, detail, like.place)


def _most_similar(ranked: Sequence[ImageSummary], white: float) -> list[int]:
    """Returns, for each image, the most similar earlier one of the same colors, -1 for none."""
    thumbnails = np.stack([summary.thumbnail for summary in ranked])
    best = [(0.0, -1)] * len(ranked)
    for start in range(0, len(ranked), BLOCK):
        block = thumbnails[start : start + BLOCK]
        for earlier in range(0, start + 1, BLOCK):
            scores = block @ thumbnails[earlier : earlier + BLOCK].T
            columns = np.arange(earlier, earlier + scores.shape[1])
            scores[columns[None, :] >= np.arange(start, start + len(block))[:, None]] = -1
            for row in np.flatnonzero(scores.max(1) >= MIN_CORRELATION).tolist():
                colors = ranked[start + row].colors()
                for column in np.argsort(-scores[row], kind="stable")[:CANDIDATES].tolist():
                    score = float(scores[row, column])
                    if score < MIN_CORRELATION or score <= best[start + row][0]:
                        break
                    difference = np.abs(colors - ranked[earlier + column].colors()).max()
                    if difference <= MAX_DIFFERENCE * white:
                        best[start + row] = score, earlier + column
                        break
    return [index for _, index in best]


def _spreads(summaries: Sequence[ImageSummary]) -> dict[str, Float[np.ndarray, "..."]]:
    """Returns the standard deviation of each task's floating-point labels, per component."""
    labels: dict[str, list[np.ndarray]] = {}
    for summary in summaries:
        for task, label in summary.labels.items():
            if label.dtype.kind == "f":
                labels.setdefault(task, []).append(label)
    return {task: np.std(np.stack(values), 0) for task, values in labels.items()}


def _differing_labels(
    image: ImageSummary, other: ImageSummary, spreads: Mapping[str, Float[np.ndarray, "..."]]
) -> list[str]:
    """Returns the tasks with different classes, or numbers that differ by a standard deviation."""
    return [
        task
        for task in image.labels
        if task in other.labels
        and (np.abs(image.labels[task] * 1.0 - other.labels[task]) > spreads.get(task, 0)).any()
    ]
