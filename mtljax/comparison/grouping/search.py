"""Which tasks to train together, by their affinity, and how sure that is. Pure NumPy."""

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

Groups = tuple[tuple[int, ...], ...]
"""A partition of 0 ... T - 1, in order."""
EXACT = 10
"""Most tasks for which all partitions are looked at."""


class Grouping(NamedTuple):
    """A recommendation and its evidence."""

    groups: Groups
    affinity: Float[np.ndarray, "T T"]
    """The mean over all measurements: row helps column."""
    score: float
    together: float
    """The score of one group of all tasks; that of every task alone is 0."""
    support: float
    """The share of resamplings of the measurements that lead to the same groups."""
    exact: bool
    """Whether no partition is better, or none was found by local search."""


def score(affinity: Float[np.ndarray, "T T"], group: Sequence[int]) -> float:
    """What a group's tasks bring each other: the mean affinity onto each, added up; alone 0."""
    if len(group) < 2:
        return 0.0
    inside = affinity[np.ix_(group, group)]
    return float((inside.sum() - np.trace(inside)) / (len(group) - 1))


def best_groups(affinity: Float[np.ndarray, "T T"], most: int | None = None) -> Groups:
    """The partition with the highest score, into at most `most` groups.

    Up to 10 tasks it is the best of all, by dynamic programming over subsets; for more it is the
    best that moves of single tasks lead to, from all together and from pairs merged greedily.
    """
    size = len(affinity)
    most = size if most is None else min(most, size)
    if size <= EXACT:
        return _exact(affinity, most)
    starts = [[list(range(size))], _merged(affinity, most)]
    found = [_moved(affinity, start, most) for start in starts]
    return _ordered(max(found, key=lambda groups: sum(score(affinity, g) for g in groups)))


def _exact(affinity: np.ndarray, most: int) -> Groups:
    """By dynamic programming: a set of tasks is the group of its first task and the rest."""
    size = len(affinity)
    sets, groups, starts = _subsets(size)
    members = [[i for i in range(size) if mask >> i & 1] for mask in range(1 << size)]
    value = np.array([score(affinity, group) for group in members])
    layers = [value]  # layers[k][set]: the best score in at most k + 1 groups
    while len(layers) < most:
        totals = value[groups] + layers[-1][sets ^ groups]
        layers.append(np.concatenate([[0.0], np.maximum.reduceat(totals, starts)]))
    found, left = [], (1 << size) - 1
    for fewer in [*reversed(layers[:-1]), None]:
        if not left:
            break
        group = left
        if fewer is not None:
            options = groups[sets == left]
            totals = value[options] + fewer[left ^ options]
            # Of equals the largest group: a split must bring something.
            best = options[totals >= totals.max() - 1e-12]
            group = int(best[np.argmax([len(members[option]) for option in best])])
        found.append(members[group])
        left ^= group
    return _ordered(found)


@functools.lru_cache(maxsize=2)
def _subsets(size: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Every set (but the empty one), every subset with its first task, and where a set starts."""
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
    of_sets = np.array(sets)
    starts = np.flatnonzero(np.diff(of_sets, prepend=0))
    return of_sets, np.array(groups), starts


def _merged(affinity: np.ndarray, most: int) -> list[list[int]]:
    groups = [[i] for i in range(len(affinity))]
    while len(groups) > 1:
        gains = {
            (a, b): score(affinity, groups[a] + groups[b])
            - score(affinity, groups[a])
            - score(affinity, groups[b])
            for a in range(len(groups))
            for b in range(a)
        }
        a, b = max(gains, key=gains.__getitem__)
        if gains[a, b] <= 0 and len(groups) <= most:
            break
        groups[b] += groups.pop(a)
    return groups


def _moved(affinity: np.ndarray, groups: list[list[int]], most: int) -> list[list[int]]:
    """Moves single tasks to other groups, or to one of their own, while that brings something."""
    groups, improved = [list(group) for group in groups], True
    while improved:
        improved = False
        for task in range(len(affinity)):
            home = next(group for group in groups if task in group)
            left = [other for other in home if other != task]
            others = [group for group in groups if group is not home]
            if len(groups) < most and left:
                others.append([])
            loss = score(affinity, home) - score(affinity, left)
            gains = [score(affinity, [*o, task]) - score(affinity, o) - loss for o in others]
            if gains and max(gains) > 1e-12:
                chosen = others[int(np.argmax(gains))]
                groups = [g for g in groups if g is not home and g is not chosen]
                groups += [part for part in (left, [*chosen, task]) if part]
                improved = True
    return groups


def _ordered(groups: Sequence[Sequence[int]]) -> Groups:
    return tuple(sorted(tuple(sorted(group)) for group in groups if group))


def recommend(
    measured: Sequence[Float[np.ndarray, "N T T"]],
    most: int | None = None,
    resamplings: int | None = None,
) -> Grouping:
    """The groups by the mean over all measurements, and how often chance would change them.

    Args:
      measured: Affinities of each seed; a resampling draws seeds, and measurements within each.
      most: At most so many groups.
      resamplings: How many; None: 200, but 20 where the search is long.
    """
    mean = lambda parts: np.nan_to_num(_mean([_mean(part) for part in parts]))
    affinity = mean(measured)
    groups = best_groups(affinity, most)
    if resamplings is None:
        resamplings = 200 if len(affinity) <= EXACT else 20
    chance, same = np.random.default_rng(0), 0
    for _ in range(resamplings):
        seeds = chance.integers(len(measured), size=len(measured))
        parts = []
        for seed in seeds:
            whole = measured[seed]
            parts.append(whole[chance.integers(len(whole), size=len(whole))])
        same += best_groups(mean(parts), most) == groups
    return Grouping(
        groups=groups,
        affinity=affinity,
        score=sum(score(affinity, group) for group in groups),
        together=score(affinity, range(len(affinity))),
        support=same / resamplings,
        exact=len(affinity) <= EXACT,
    )


def _mean(measured: Any) -> Float[np.ndarray, "T T"]:
    """The mean over the first axis of what is not NaN; NaN where there is nothing."""
    measured = np.asarray(measured, float)
    known = ~np.isnan(measured)
    counts = known.sum(0)
    sums = np.where(known, measured, 0.0).sum(0)
    return np.where(counts > 0, sums / np.maximum(counts, 1), np.nan)
