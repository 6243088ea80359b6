"""What of a model learns, and what stays as it is."""

import contextlib
import re
from collections.abc import Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

import flax.linen as nn

from mtljax.models.partition import Flat
from mtljax.utils.registry import nearest
from mtljax.utils.tree import flat

COPY = re.compile(r"[^/]+_(trunk_\d+)(?=/)")
"""A stage of a trunk that each task, say, has a copy of: `digit_trunk_0`."""


def divide(params: Mapping, freeze: Sequence[str]) -> tuple[Flat, Flat]:
    """(parameters that learn, frozen ones), each flat by path.

    Args:
      params: Nested, as Flax has them.
      freeze: What is frozen; see `is_in`.

    Raises:
      ValueError: There is nothing of such a name, or nothing is left that learns.

    Example:
      >>> learning, frozen = divide({"trunk_0": {"kernel": 1}, "task_a": {"kernel": 2}}, ["trunk"])
      >>> learning, frozen
      ({'task_a/kernel': 2}, {'trunk_0/kernel': 1})
    """
    leaves = flat(params)
    for name in freeze:
        if not any(is_in(path, name) for path in leaves):
            raise ValueError(f"freeze: nothing is called {name!r}{nearest(name, _modules(leaves))}")
    frozen = {path: x for path, x in leaves.items() if any(is_in(path, name) for name in freeze)}
    if freeze and len(frozen) == len(leaves):
        raise ValueError(f"freeze={tuple(freeze)} leaves nothing that learns; freeze less")
    return {path: x for path, x in leaves.items() if path not in frozen}, frozen


def is_in(path: str, name: str) -> bool:
    """Whether a parameter is called so, or in a module that is.

    A name is that of a module or a parameter, or several that follow each other on the path, with
    `*` for anything: `trunk_0`, `task_digit`, `trunk_3/block_*`, `fusion/trunk_0/stem`, `bias`.
    Without its number it means all of them, `trunk` the whole trunk; and a stage of which each task
    has a copy is called as if there were one.

    Example:
      >>> is_in("fusion/digit_trunk_0/Conv_0/kernel", "trunk"), is_in("task_a/kernel", "task_b")
      (True, False)
    """
    return any(
        fnmatchcase(f"/{form}/", f"*/{wanted}/*")
        for form in (path, COPY.sub(r"\1", path))
        for wanted in (name, f"{name}_[0-9]*")
    )


def _modules(paths: Mapping[str, Any]) -> set[str]:
    """What somebody might have meant: the modules of the two outermost levels."""
    names = {name for path in paths for name in COPY.sub(r"\1", path).split("/")[:-1][:2]}
    return names | {re.sub(r"_\d+$", "", name) for name in names}


@contextlib.contextmanager
def frozen_statistics() -> Iterator[None]:
    """Within it, batch normalisation works as in evaluation, whatever mode the model is in.

    It normalises by its running statistics and leaves them as they are.
    """
    with nn.intercept_methods(_by_running_statistics):
        yield


def _by_running_statistics(next_fun, args, kwargs, context):
    module = context.module
    if isinstance(module, nn.BatchNorm) and context.method_name == "__call__":
        # The module is a copy made for this call, and which mode it is in is one of its fields.
        object.__setattr__(module, "use_running_average", True)
        args, kwargs = args[:1], {k: x for k, x in kwargs.items() if k != "use_running_average"}
    return next_fun(*args, **kwargs)
