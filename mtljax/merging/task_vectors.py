"""Merging by arithmetic on task vectors: the change of the shared parameters in each run."""

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Literal

import numpy as np

from mtljax.merging.base import Candidate, Merger, Parameters, Problem, along, mean
from mtljax.utils.registry import choose

Vectors = Sequence[Mapping[str, np.ndarray]]
"""Task vector of each run, by path."""
SCALES = tuple(round(0.1 * i, 1) for i in range(1, 11))
"""Scales of sums of task vectors between which validation chooses: 0.1, 0.2 ... 1."""
MEAN_SCALES = (0.2, 0.4, 0.6, *(round(0.1 * i, 1) for i in range(8, 26)))
"""Scales of the disjoint mean of TIES between which validation chooses: 0.8, 0.9 ... 2.5, as in the
official code, and smaller ones, which suit runs from random weights."""


def average() -> Merger:
    """Mean of the runs' shared parameters.

    References:
      Wortsman et al., 2022, arXiv:2203.05482
    """

    def merge(problem: Problem) -> Iterator[Candidate]:
        yield Candidate({}, mean(problem.tuned))

    return Merger(merge)


def task_arithmetic(scale: float | None = None) -> Merger:
    """Task arithmetic: the start plus the scaled sum of the task vectors.

    With the start theta_0 and the task vectors tau_t = theta_t - theta_0 of the runs, the merged
    parameters are theta_0 + scale * sum_t tau_t. With scale 1 / T this is `average`.

    Args:
      scale: Scale of the sum; none: the best on validation of 0.1, 0.2 ... 1, as in the paper
        (FusionBench: 0.3).

    References:
      Ilharco et al., 2022, arXiv:2212.04089
    """

    def merge(problem: Problem) -> Iterator[Candidate]:
        return _scaled(problem.start, _sum(problem.task_vectors), scale, SCALES)

    return Merger(merge)


def ties(
    density: float = 0.2, scale: float | None = None, combine: Literal["mean", "sum"] = "mean"
) -> Merger:
    """TIES: task vectors without small and contradictory entries.

    Of each task vector, the fraction `density` of the entries of largest magnitude is retained
    and the rest are set to 0 (trim). The sign of each entry is that of its sum over tasks, or
    the more frequent one if the sum is 0 (elect). The entries with this sign are averaged over the
    tasks that have them (merge). The result times `scale` is added to the start.

    Convention: the fraction is one of all shared parameters, not of each array, as in the official
    code (which keeps one entry more).

    Args:
      density: Fraction of the entries of a task vector that is retained, in (0, 1].
      scale: Scale of the merged vector; none: the best on validation of 0.2, 0.4, 0.6 and 0.8, 0.9
        ... 2.5 (official code: from 0.8 on), or of 0.1, 0.2 ... 1 for `combine=sum`.
      combine: mean, as in the paper, or sum, as in FusionBench (there with scale 0.5).

    References:
      Yadav et al., 2023, arXiv:2306.01708
    """
    if not 0 < density <= 1:
        raise ValueError(f"ties: density must be in (0, 1], not {density}")

    def merge(problem: Problem) -> Iterator[Candidate]:
        vector = ties_vector(problem.task_vectors, density, combine)
        scales = MEAN_SCALES if combine == "mean" else SCALES
        return _scaled(problem.start, vector, scale, scales)

    return Merger(merge)


def dare(drop: float = 0.1, method: str = "task_arithmetic") -> Merger:
    """DARE: drops entries of the task vectors at random before another method.

    Each entry of a task vector is set to 0 with probability `drop`; the rest are divided by
    1 - drop, so that the expectation is unchanged. The entries are fixed by the runs' seed.

    Args:
      drop: Probability of dropping an entry, in [0, 1); 0.1 is the default of the official code,
        which also tries values up to 0.9 (FusionBench: 0.5).
      method: task_arithmetic, ties or average, with its arguments, such as 'ties:density=0.3'.

    References:
      Yu et al., 2023, arXiv:2311.03099
    """
    if not 0 <= drop < 1:
        raise ValueError(f"dare: drop must be in [0, 1), not {drop}")
    methods: dict[str, Callable[..., Merger]]
    methods = {"task_arithmetic": task_arithmetic, "ties": ties, "average": average}
    following: Merger = choose("method after dare", method, methods).build()

    def merge(problem: Problem) -> Iterator[Candidate]:
        vectors = drop_entries(problem.task_vectors, drop, problem.seed)
        tuned = [along(problem.start, vector, 1.0) for vector in vectors]
        return following.candidates(dataclasses.replace(problem, tuned=tuned))

    return Merger(merge)


def drop_entries(vectors: Vectors, drop: float, seed: int) -> list[dict[str, np.ndarray]]:
    """Drops entries of each vector at random, and divides the rest by 1 - drop."""
    random = np.random.default_rng(seed)
    keep = lambda x: random.random(x.shape, np.float32) >= drop
    return [{k: (x * keep(x) / (1 - drop)).astype(x.dtype) for k, x in v.items()} for v in vectors]


def ties_vector(
    vectors: Vectors, density: float, combine: Literal["mean", "sum"] = "mean"
) -> dict[str, np.ndarray]:
    """Merged vector of TIES before scaling."""
    trimmed = [_trim(vector, density) for vector in vectors]
    total = _sum(trimmed)
    majority = np.sign(sum(np.sign(x).sum() for x in total.values()))
    merged = {}
    for path, x in total.items():
        sign = np.where(x == 0, majority, np.sign(x))
        entries = np.stack([vector[path] for vector in trimmed])
        entries = np.where(entries * sign > 0, entries, 0)
        count = np.maximum(np.count_nonzero(entries, axis=0), 1) if combine == "mean" else 1
        merged[path] = entries.sum(0) / count
    return merged


def _trim(vector: Mapping[str, np.ndarray], density: float) -> dict[str, np.ndarray]:
    magnitudes = np.concatenate([np.abs(x).ravel() for x in vector.values()])
    kept = max(1, int(density * len(magnitudes)))
    threshold = np.partition(magnitudes, len(magnitudes) - kept)[len(magnitudes) - kept]
    return {path: np.where(np.abs(x) >= threshold, x, 0) for path, x in vector.items()}


def _sum(vectors: Vectors) -> dict[str, np.ndarray]:
    return {path: np.sum([vector[path] for vector in vectors], axis=0) for path in vectors[0]}


def _scaled(
    start: Parameters, direction: Parameters, scale: float | None, scales: Sequence[float]
) -> Iterator[Candidate]:
    for value in scales if scale is None else [scale]:
        yield Candidate({"scale": value}, along(start, direction, value))
