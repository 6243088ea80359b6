"""Reading every example once: what cannot be read, is out of range, or is there twice."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Float

from mtljax.data.base import Source
from mtljax.data.pipeline import READERS
from mtljax.data.pool import Place, Pool, digest, pool_of
from mtljax.screening.findings import Finding
from mtljax.tasks import Task

SIDE = 16
"""Height and width that images are brought to before they are compared, if they are larger."""
ALIKE = 0.995
"""Correlation from which two images are the same but for noise or packing. The most alike of the
1,797 digits of scikit-learn, 8 x 8 pixels each, have 0.992."""
FENCE = 3.0
"""Interquartile ranges beyond the upper quartile (Tukey's far out) that make an extreme."""
SLACK = 0.05
"""Share of black to white that images may be beyond it: some sources take the largest value of the
training images for white, and others may be a little brighter."""
AT_ONCE = 2048


class Seen(NamedTuple):
    """What is kept of an example that was read."""

    place: Place
    small: Float[np.ndarray, " n"]
    """The image, small, centred, of length 1; zeros where it has no content."""
    low: float
    high: float
    digest: str
    size: tuple[int, ...]
    exact: bool
    """Whether its pixels are integers, which cannot be beyond black and white."""


def look(source: Source, tasks: Sequence[Task]) -> tuple[list[Seen], list[Finding]]:
    """Reads all examples; those that are broken are not seen any more by what follows."""
    pool = pool_of(source)
    seen: list[Seen] = []
    findings: list[Finding] = []
    with ThreadPoolExecutor(READERS) as threads:
        for found in threads.map(lambda i: _look_at(pool, i, tasks), range(len(pool))):
            (seen if isinstance(found, Seen) else findings).append(found)
    extremes = list(_extremes(seen, source))
    wrong = {finding.place for finding in extremes}
    return [one for one in seen if one.place not in wrong], findings + extremes


def _look_at(pool: Pool, index: int, tasks: Sequence[Task]) -> Any:
    place = pool.places[index]
    try:
        example = pool[index]
        for task in tasks:
            if example["present"][task.name]:
                task.check(
                    jax.tree.map(lambda x: np.asarray(x)[None], example["labels"][task.name])
                )
    except Exception as error:  # whatever a source's reader raises
        reason = " ".join(str(error).split()) or type(error).__name__
        return Finding(place, "unreadable", reason)
    image = np.asarray(example["image"])
    if not np.isfinite(image).all():
        count = int((~np.isfinite(image)).sum())
        return Finding(place, "not finite", f"{count} of {image.size} values")
    small = _small(image)
    low, high, exact = float(image.min()), float(image.max()), image.dtype.kind in "iub"
    return Seen(place, small, low, high, digest(image), tuple(image.shape), exact)


def _small(image: np.ndarray) -> np.ndarray:
    height, width = image.shape[:2]
    rows, columns = (np.linspace(0, n, min(n, SIDE) + 1).astype(int) for n in (height, width))
    sums = np.add.reduceat(np.add.reduceat(image.astype(np.float64), rows[:-1], 0), columns[:-1], 1)
    means = sums / (np.diff(rows)[:, None, None] * np.diff(columns)[None, :, None])
    # All images get one length, so those of different sizes are compared too.
    grid = np.zeros((SIDE, SIDE, means.shape[2]))
    at = [np.arange(SIDE) * n // SIDE for n in means.shape[:2]]
    grid[:] = means[np.ix_(*at)]
    flat = grid.ravel() - grid.mean()
    length = np.linalg.norm(flat)
    return (flat / length if length > 1e-9 else 0 * flat).astype(np.float32)


def _extremes(seen: Sequence[Seen], source: Source) -> Iterator[Finding]:
    """Images beyond black and white, or with values far out of what the others have.

    Where white is taken from the data itself, one wild pixel would make itself the white.
    """
    if not seen:
        return
    highs, lows = np.array([s.high for s in seen]), np.array([s.low for s in seen])
    (q1, q2, q3), (r1, r2, r3) = (np.quantile(x, (0.25, 0.5, 0.75)) for x in (highs, lows))
    spread, slack = 0.2 * max(q2 - r2, 1e-6), SLACK * (source.high - source.low)
    top = min(q3 + FENCE * max(q3 - q1, spread), source.high + slack)
    bottom = max(r1 - FENCE * max(r3 - r1, spread), source.low - slack)
    for one in seen:
        if not one.exact and (one.high > max(top, q2) or one.low < min(bottom, r2)):
            yield Finding(
                one.place,
                "out of range",
                f"values {one.low:.4g} .. {one.high:.4g}; usual are {r2:.4g} .. {q2:.4g}",
            )


def doubles(seen: Sequence[Seen]) -> Iterator[Finding]:
    """Images that are there twice: within a split, and, worse, in two.

    Of a split's duplicates the first is kept; of a leak, the example of the split that is looked at
    last: test before validation before train.
    """
    order = {"test": 0, "validation": 1, "train": 2}
    ranked = sorted(seen, key=lambda one: (order.get(one.place.split, 3), one.place.row))
    if not ranked:
        return
    table = np.stack([one.small for one in ranked])
    first: dict[str, int] = {}
    for start in range(0, len(ranked), AT_ONCE):
        block = table[start : start + AT_ONCE]
        alike = np.full(len(block), -1)
        for earlier in range(0, start + 1, AT_ONCE):
            scores = block @ table[earlier : earlier + AT_ONCE].T
            column = np.arange(earlier, earlier + scores.shape[1])
            scores[column[None, :] >= np.arange(start, start + len(block))[:, None]] = -1
            best = scores.argmax(1)
            hit = (scores[np.arange(len(block)), best] >= ALIKE) & (alike < 0)
            alike[hit] = column[best[hit]]
        for i, one in enumerate(ranked[start : start + AT_ONCE], start):
            same = first.setdefault(one.digest, i)
            other = same if same < i else int(alike[i - start])
            if other < 0 or ranked[other].size != one.size and same == i:
                continue
            like = ranked[other].place
            kind = "duplicate" if like.split == one.place.split else "leak"
            detail = f"{'the same as' if same < i else 'nearly'} {like}"
            yield Finding(one.place, kind, detail, like)
