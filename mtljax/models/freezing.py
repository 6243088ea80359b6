"""Selection of frozen parameters by name."""

import re
from collections.abc import Iterable, Mapping, Sequence
from fnmatch import fnmatchcase

from mtljax.models.partition import Flat
from mtljax.utils.registry import nearest
from mtljax.utils.tree import flatten

STAGE_COPY = re.compile(r"[^/]+_(trunk_\d+)(?=/)")
"""A copy of a trunk stage, for example one per task: `digit_trunk_0`."""


def split_frozen(params: Mapping, freeze: Sequence[str]) -> tuple[Flat, Flat]:
    """Splits parameters into (trainable, frozen), flat by path; for `freeze` see `path_matches`.

    Raises:
      ValueError: A name matches no parameter, or no trainable parameter remains.

    Example:
      >>> split_frozen({"trunk_0": {"kernel": 1}, "task_a": {"kernel": 2}}, ["trunk"])
      ({'task_a/kernel': 2}, {'trunk_0/kernel': 1})
    """
    leaves = flatten(params)
    for name in freeze:
        if not any(path_matches(path, name) for path in leaves):
            raise ValueError(
                f"freeze: unknown module {name!r}{nearest(name, module_names(leaves))}"
            )
    frozen = {p: x for p, x in leaves.items() if any(path_matches(p, name) for name in freeze)}
    if freeze and len(frozen) == len(leaves):
        raise ValueError(f"freeze={tuple(freeze)} leaves no trainable parameter; freeze less")
    return {path: x for path, x in leaves.items() if path not in frozen}, frozen


def path_matches(path: str, name: str) -> bool:
    """True if `name` selects the parameter at `path`.

    A name is a module, a parameter, or several consecutive parts of the path, with `*` as a
    wildcard: `trunk_0`, `task_digit`, `trunk_3/block_*`, `fusion/trunk_0/stem`, `bias`. A name
    without number selects all numbers (`trunk`: the entire trunk), a stage all per-task copies.

    Example:
      >>> path_matches("fusion/digit_trunk_0/kernel", "trunk"), path_matches("task_a/b", "task_b")
      (True, False)
    """
    return any(
        fnmatchcase(f"/{form}/", f"*/{pattern}/*")
        for form in (path, STAGE_COPY.sub(r"\1", path))
        for pattern in (name, f"{name}_[0-9]*")
    )


def module_names(paths: Iterable[str]) -> set[str]:
    """Returns the names of the modules of the two outermost levels, with and without numbers."""
    names = {name for path in paths for name in STAGE_COPY.sub(r"\1", path).split("/")[:-1][:2]}
    return names | {re.sub(r"_\d+$", "", name) for name in names}
