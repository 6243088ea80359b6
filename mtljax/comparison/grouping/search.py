"""Search for the partition of tasks with the highest affinity, and its bootstrap support."""

import functools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from mtljax.comparison.statistics import nanmean

Groups = tuple[tuple[int, ...], ...]
"""Partition of the task indices 0 ... T - 1, sorted."""
EXACT = 10
"""Maximum number of tasks for which the search is exact."""


class Grouping(NamedTuple):
    """Recommended partition and its evidence."""

    groups: Groups
    """Groups of tasks."""
    affinity: Float[np.ndarray, "T T"]
    """Mean over all measurements: relative decrease of the column's loss by a step on the row."""
    score: float
    """Sum of the scores of the groups; higher is better."""
    joint_score: float
    """Score of one group of all tasks. The score of T groups of one task is 0."""
    support: float
    """Fraction of bootstrap resamples of the measurements with the same groups."""
    is_exact: bool
    """True if the groups are optimal; False if a local search returned them."""
    measurements: tuple[int, ...]
    """Number of measurements of each seed."""


def score(affinity: Float[np.ndarray, "T T"], group: Sequence[int]) -> float:
    """Sum over the group's tasks of the mean affinity from its other tasks; 0 for one task."""
    if len(group) < 2:
        return 0.0
    inside = affinity[np.ix_(group, group)]
    return float((inside.sum() - np.trace(inside)) / (len(group) - 1))


def best_groups(affinity: Float[np.ndarray, "T T"], most: int | None = None) -> Groups:
    """Returns the partition into at most `most` groups with the highest score.

    Up to `EXACT` tasks the result is optimal, by dynamic programming over subsets. For more tasks a
    local search moves single tasks, from one group of all tasks and from greedily merged pairs.
    """
    size = len(affinity)
    most = size if most is None else min(most, size)
    if size <= EXACT:
        return _exact(affinity, most)
    starts = [[list(range(size))], _greedy_merge(affinity, most)]
    optima = [_local_search(affinity, start, most) for start in starts]
    return _sorted(max(optima, key=lambda groups: sum(score(affinity, g) for g in groups)))


def _exact(affinity: np.ndarray, most: int) -> Groups:
    """Dynamic programming: a set of tasks is the group of its first task, and the remainder."""
    size = len(affinity)
    sets, groups, starts = _subsets(size)
    members = [[i for i in range(size) if mask >> i & 1] for mask in range(1 << size)]
    value = np.array([score(affinity, group) for group in members])
    layers = [value]  # layers[k][set]: best score with at most k + 1 groups
    while len(layers) < most:
        totals = value[groups] + layers[-1][sets ^ groups]
        layers.append(np.concatenate([[0.0], np.maximum.reduceat(totals, starts)]))
    chosen, left = [], (1 << size) - 1
    for fewer in [*reversed(layers[:-1]), None]:
        if not left:
            break
        group = left
        if fewer is not None:
            options = groups[sets == left]
            totals = value[options] + fewer[left ^ options]
            # Ties go to the largest group: a split must improve the score.
            best = options[totals >= totals.max() - 1e-12]
            group = int(best[np.argmax([len(members[option]) for option in best])])
        chosen.append(members[group])
        left ^= group
    return _sorted(chosen)


@functools.lru_cache(maxsize=2)
def _subsets(
    size: int,
) -> tuple[Int[np.ndarray, " N"], Int[np.ndarray, " N"], Int[np.ndarray, " sets"]]:
    """Returns (set, subset with the set's first task) for all pairs, and each set's first row."""
    sets, groups = [], []
    for mask in range(1, 1 << size):
        lowest, part = mask & -mask, mask & (mask - 1)
        rest = part
        while True:
            sets.append(mask)
            groups.append(part | lowest)
            if not part:
                break
            part = (part - 1) & rest
    starts = np.flatnonzero(np.diff(np.array(sets), prepend=0))
    return np.array(sets), np.array(groups), starts


def _greedy_merge(affinity: np.ndarray, most: int) -> list[list[int]]:
    groups = [[i] for i in range(len(affinity))]
    while len(groups) > 1:
        scores = [score(affinity, group) for group in groups]
        gains = {
            (a, b): score(affinity, groups[a] + groups[b]) - scores[a] - scores[b]
            for a in range(len(groups))
            for b in range(a)
        }
        a, b = max(gains, key=gains.__getitem__)
        if gains[a, b] <= 0 and len(groups) <= most:
            break
        groups[b] += groups.pop(a)
    return groups


def _local_search(affinity: np.ndarray, groups: list[list[int]], most: int) -> list[list[int]]:
    """Moves single tasks to another or a new group while that improves the score."""
    groups, improved = [list(group) for group in groups], True
    while improved:
        improved = False
        for task in range(len(affinity)):
            source = next(group for group in groups if task in group)
            rest = [other for other in source if other != task]
            targets = [group for group in groups if group is not source]
            if len(groups) < most and rest:
                targets.append([])
            loss = score(affinity, source) - score(affinity, rest)
            gains = [score(affinity, [*t, task]) - score(affinity, t) - loss for t in targets]
            if gains and max(gains) > 1e-12:
                target = targets[int(np.argmax(gains))]
                groups = [g for g in groups if g is not source and g is not target]
                groups += [part for part in (rest, [*target, task]) if part]
                improved = True
    return groups


def _sorted(groups: Sequence[Sequence[int]]) -> Groups:
    return tuple(sorted(tuple(sorted(group)) for group in groups if group))


def recommend(
    measured: Sequence[Float[np.ndarray, "_ T T"]],
    most: int | None = None,
    resamples: int | None = None,
) -> Grouping:
    """Returns the best groups by the mean affinity, and their bootstrap support.

    Args:
      measured: Affinities of each seed. A resample draws seeds, and measurements within each.
      most: Maximum number of groups.
      resamples: Number of resamples; None: 200, or 20 for more than `EXACT` tasks.
    """
    mean = lambda parts: np.nan_to_num(nanmean(np.stack([nanmean(part) for part in parts])))
    affinity = mean(measured)
    groups, is_exact = best_groups(affinity, most), len(affinity) <= EXACT
    if resamples is None:
        resamples = 200 if is_exact else 20
    rng, equal = np.random.default_rng(0), 0
    for _ in range(resamples):
        drawn = [measured[seed] for seed in rng.integers(len(measured), size=len(measured))]
        drawn = [part[rng.integers(len(part), size=len(part))] for part in drawn]
        equal += best_groups(mean(drawn), most) == groups
    return Grouping(
        groups=groups,
        affinity=affinity,
        score=sum(score(affinity, group) for group in groups),
        joint_score=score(affinity, range(len(affinity))),
        support=equal / resamples,
        is_exact=is_exact,
        measurements=tuple(map(len, measured)),
    )
