"""Groups and strata of examples, which splits and folds respect."""

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from mtljax.data.rows import Row
from mtljax.utils.registry import nearest
from mtljax.utils.text import joined, normalized, shortened

LISTED = 5
"""Maximum number of rows or values that a message lists."""


class Membership(NamedTuple):
    """Group and stratum of a row, for splits."""

    group: str = ""
    """Rows of one group are in one split: a patient, a video; "": the row only."""
    stratum: str = ""
    """Rows of one stratum are in all splits in proportion: a class."""


def members_of_table(
    place: str, rows: Sequence[Row], group: str | None, stratify: str | None
) -> list[Membership]:
    """Returns the group and the stratum of each row from columns of its table.

    An empty cell of the column `stratify` is a separate stratum: the rows without a label.

    Args:
      place: Table, for error messages.
      group, stratify: Names of the columns; None: no groups, no strata.

    Raises:
      ValueError: No such column, a row without a group, or a stratum for nearly every row.
    """
    known = {name for row in rows for name in row.cells}
    for argument, column in (("group", group), ("stratify", stratify)):
        if column is not None and column not in known:
            fault = f"no column {column!r} for {argument}={column}{nearest(column, known)}"
            raise ValueError(f"{place} has {fault}")
    read = lambda column: _texts(place, rows, column) if column else [""] * len(rows)
    members = list(map(Membership, read(group), read(stratify)))
    empty = [row.number for row, member in zip(rows, members, strict=True) if not member.group]
    if group and empty:
        which = ", ".join(map(str, empty[:LISTED])) + (", ..." if len(empty) > LISTED else "")
        raise ValueError(
            f"{place}: column {group!r} is empty in {len(empty)} of {len(rows)} rows (row {which}):"
            " fill it in, so that group= knows which rows belong together"
        )
    if stratify:
        check_strata(f"{place}: column {stratify!r}", members, f"stratify={stratify}")
    return members


def groups_of_names(place: str, names: Sequence[str], pattern: str) -> list[str]:
    """Returns the part of each name that a regular expression matches: its group.

    Args:
      place: Data set, for error messages.
      names: Paths of images in the data set.
      pattern: Regular expression that is searched in a name; the group is what matches its first
        parentheses, or all of it without any.

    Raises:
      ValueError: The expression is invalid, or a name does not match.
    """
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise ValueError(f"{place}: group={pattern} is no regular expression: {error}") from None
    matches = [compiled.search(name) for name in names]
    groups = [(match[1 if compiled.groups else 0] or "") if match else "" for match in matches]
    without = [name for name, group in zip(names, groups, strict=True) if not group]
    if without:
        raise ValueError(
            f"{place}: group={pattern} matches nothing in {len(without)} of {len(names)} names of "
            f"images, first {shortened(without[0])}"
        )
    return groups


def check_strata(place: str, members: Sequence[Membership], argument: str) -> None:
    """Raises ValueError if most strata have a single row, as in a column of measurements."""
    count = len({member.stratum for member in members})
    if count > max(2, len(members) / 2):
        raise ValueError(
            f"{place} has {count} different values in {len(members)} rows; {argument} needs few "
            "different values, such as classes"
        )


def _texts(place: str, rows: Sequence[Row], column: str) -> list[str]:
    """Returns the cells of a column as text, "" for an empty one."""
    texts = []
    for row in rows:
        try:
            texts.append(text_of_value(row.cells.get(column)))
        except ValueError as error:
            raise ValueError(f"{place} row {row.number}: column {column!r} {error}") from None
    return texts


def text_of_value(value: Any) -> str:
    """Returns a cell as text, equal for all formats of tables; "" if it is empty."""
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, (list, dict, bytes)):
        raise ValueError(f"has a {type(value).__name__}; must have a word or a number")
    return normalized(str(value))


def require_whole_groups(
    place: str, parts: Mapping[str, Sequence[int]], members: Sequence[Membership]
) -> None:
    """Raises ValueError, naming the group, if given splits divide a group."""
    splits_of: dict[str, dict[str, None]] = {}
    for name, rows in parts.items():
        for row in rows:
            if members[row].group:
                splits_of.setdefault(members[row].group, {})[name] = None
    divided = {group: names for group, names in splits_of.items() if len(names) > 1}
    if divided:
        group, names = next(iter(divided.items()))
        others = f" (and {len(divided) - 1} more)" if len(divided) > 1 else ""
        raise ValueError(
            f"{place}: group {shortened(group)!r} has rows in the {joined(list(names))} splits"
            f"{others}; correct the column with the splits, or remove it to split by group"
        )
