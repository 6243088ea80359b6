"""`list`."""

import dataclasses
from typing import Annotated

import tyro

from mtljax.cli.flags import parse


@dataclasses.dataclass(frozen=True, kw_only=True)
class ListFlags:
    """The things that are chosen by name, one line each."""

    kinds: Annotated[tuple[str, ...], tyro.conf.Positional] = ()
    """experiments, balancers, trunks, fusions, tasks, sources, ... (default: all)."""


def list_verb(arguments: list[str]) -> int:
    """The experiments, and everything that is chosen by name."""
    flags = parse(ListFlags, arguments, "list")
    from mtljax.cli.catalog import KINDS, entries
    from mtljax.cli.tables import catalog_table
    from mtljax.utils.terminal import console

    for kind in flags.kinds or KINDS:
        console.print(catalog_table(kind, entries(kind)))
    return 0
