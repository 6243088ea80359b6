"""Division of rows into splits or folds, by hashes of names; groups are not divided.

scikit-learn's splitters divide into equal folds, or reject classes with one row; splits need
unequal shares, and rare classes are ordinary. Rows are ordered by hashes, so that additional rows
move few others.
"""

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from mtljax.data.membership import LISTED, Membership
from mtljax.data.notes import NoteCounter
from mtljax.utils.text import joined, shortened

SPLITS = ("train", "validation", "test")
"""Names of the splits."""


def split_rows(
    names: Sequence[str],
    members: Sequence[Membership],
    validation: float,
    test: float,
    seed: int,
    notes: NoteCounter,
) -> dict[str, list[int]]:
    """Returns the rows of each split.

    Without strata, each group, or each row that has none, is assigned by a hash of its name only:
    it remains in its split when rows are added. With strata, rows are counted off in proportion,
    so that additional rows may move existing ones.

    Args:
      names: Name of each row.
      members: Group and stratum of each row.
      validation, test: Share of these rows.
      seed: Seed of the hashes.
      notes: Receives warnings about splits and strata with few rows.
    """
    if all(not member.stratum for member in members):
        groups = [member.group or name for member, name in zip(members, names, strict=True)]
        return split_by_hash(groups, validation, test, seed, notes)
    _check_shares(validation, test)
    shares = (1 - validation - test, validation, test)
    parts = partition(names, members, shares, seed, favor_first=True)
    note_rare_strata(parts, members, "split", notes)
    return {name: sorted(part.tolist()) for name, part in zip(SPLITS, parts, strict=True)}


def split_by_hash(
    names: Sequence[str],
    validation: float,
    test: float,
    seed: int,
    notes: NoteCounter | None = None,
) -> dict[str, list[int]]:
    """Returns the rows of each split, by a hash of each row's name; equal names together.

    Among few names, the hashes may leave a split empty: it then receives the next name.
    """
    _check_shares(validation, test)
    hashes = {name: _hash(seed, name) for name in names}
    order, count = sorted(hashes, key=hashes.__getitem__), len(hashes)
    by_hash = [sum(h < share for h in hashes.values()) for share in (test, test + validation)]
    first = min(max(by_hash[0], 1), max(count - 2, 1))
    second = min(max(by_hash[1], first + 1), max(count - 1, first + 1))
    if [first, second] != by_hash and notes is not None and count >= len(SPLITS):
        what = f"{count} names or groups are few to split at random: a split has only one of them"
        notes.add("warning", what)
    split_of = dict.fromkeys(order, "train") | dict.fromkeys(order[:second], "validation")
    split_of |= dict.fromkeys(order[:first], "test")
    rows: dict[str, list[int]] = {name: [] for name in SPLITS}
    for i, name in enumerate(names):
        rows[split_of[name]].append(i)
    return rows


def _check_shares(validation: float, test: float) -> None:
    if not (validation > 0 and test > 0 and validation + test < 1):
        raise ValueError(f"validation={validation} and test={test} must be > 0 and have a sum < 1")


def _hash(seed: int, name: str) -> float:
    """Returns a number in [0, 1)."""
    digest = hashlib.sha256(f"{seed}/{name}".encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


def partition(
    names: Sequence[str],
    members: Sequence[Membership],
    shares: Sequence[float],
    seed: int = 0,
    *,
    favor_first: bool = False,
) -> list[Int[np.ndarray, " n"]]:
    """Returns the rows of parts with these shares of the rows and of each stratum.

    Without groups, the number of rows of a stratum in a part differs by less than one from the
    exact share. With groups, the shares are approximate, and each part has at least one group if
    there are enough.

    Args:
      names: Name of each row, which with the seed determines its place in the order.
      members: Group and stratum of each row.
      shares: Share of each part; their sum is 1.
      favor_first: Put a row of every stratum in the first part, the training split.
    """
    strata, stratum = np.unique([member.stratum for member in members], return_inverse=True)
    keys = [member.group or name for member, name in zip(members, names, strict=True)]
    order = np.argsort([_hash(seed, key) for key in keys], kind="stable")
    if any(member.group for member in members):
        return _partition_groups(members, stratum, order, np.asarray(shares))
    sizes = np.bincount(stratum, minlength=len(strata))
    counts = _counts(sizes, np.asarray(shares), favor_first)
    parts: list[list[np.ndarray]] = [[] for _ in shares]
    for number in range(len(strata)):
        rows = order[stratum[order] == number]
        cuts = np.split(rows, np.cumsum(counts[number])[:-1])
        for part, cut in zip(parts, cuts, strict=True):
            part.append(cut)
    return [np.sort(np.concatenate(part)) for part in parts]


def _counts(
    sizes: Int[np.ndarray, " S"], shares: Float[np.ndarray, " P"], favor_first: bool
) -> Int[np.ndarray, "S P"]:
    """Returns the number of rows of each stratum in each part: the exact share, rounded.

    The parts that have received least so far are rounded up, so that the parts have their
    shares also of many small strata.
    """
    exact = np.outer(sizes, shares)
    counts = np.floor(exact + 1e-9).astype(int)
    missing = np.zeros(len(shares))
    for number, size in enumerate(sizes):
        missing += exact[number] - counts[number]
        priority = np.where(exact[number] - counts[number] > 1e-9, missing, -np.inf)
        if favor_first and not counts[number, 0]:
            priority[0] = np.inf
        chosen = np.argsort(-priority, kind="stable")[: size - counts[number].sum()]
        counts[number, chosen] += 1
        missing[chosen] -= 1
    return counts


def _partition_groups(
    members: Sequence[Membership],
    stratum: Int[np.ndarray, " N"],
    order: Int[np.ndarray, " N"],
    shares: Float[np.ndarray, " P"],
) -> list[Int[np.ndarray, " n"]]:
    """Assigns groups, the largest first, to the part that lacks most of their strata's rows."""
    groups: dict[Any, list[int]] = {}
    for row in order.tolist():
        groups.setdefault(members[row].group or row, []).append(row)
    sizes = np.bincount(stratum)
    missing = np.outer(shares, [*sizes, len(order)])  # the last column: rows of any stratum
    weights = 1 / np.array([*sizes, len(order)])
    parts: list[list[int]] = [[] for _ in shares]
    by_size = sorted(groups.values(), key=len, reverse=True)
    for number, rows in enumerate(by_size):
        kinds, counts = np.unique(stratum[rows], return_counts=True)
        kinds, counts = np.append(kinds, len(sizes)), np.append(counts, len(rows))
        gain = missing[:, kinds] @ (counts * weights[kinds])
        is_empty = np.array([not part for part in parts])
        if len(by_size) - number <= is_empty.sum():
            gain[~is_empty] = -np.inf
        chosen = int(gain.argmax())
        parts[chosen] += rows
        missing[chosen, kinds] -= counts
    return [np.sort(np.array(part, int)) for part in parts]


def note_rare_strata(
    parts: Sequence[Int[np.ndarray, " n"]],
    members: Sequence[Membership],
    noun: str,
    notes: NoteCounter,
) -> None:
    """Notes the strata that a part has no row of."""
    in_parts = [{members[int(row)].stratum for row in part} for part in parts]
    everywhere = set.intersection(*in_parts)
    rare = sorted({name for names in in_parts for name in names} - everywhere)
    if rare:
        shown = [repr(shortened(name)) if name else "(no value)" for name in rare[:LISTED]]
        more = [f"{len(rare) - LISTED} more"] if len(rare) > LISTED else []
        which = joined([*shown, *more])
        notes.add("warning", f"too few rows of {which} for one in every {noun}")
