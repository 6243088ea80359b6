"""Verb `list`."""

import dataclasses
from typing import Annotated

import tyro

from mtljax.cli.flags import parse


@dataclasses.dataclass(frozen=True, kw_only=True)
class ListFlags:
    """Lists what can be chosen by name: experiments, balancers, trunks, fusions and so on."""

    words: Annotated[
        tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="[KIND [NAME]]")
    ] = ()
    """KIND: experiments, balancers, combinators, trunks, fusions, conditionings, tasks, sources,
    augmentations, optimizers, schedules, attacks, distillations, shardings, exports, merges or
    engines; if omitted, all. NAME: show one entry in full."""
    verbose: bool = False
    """Show all entries in full, with their arguments."""


def list_verb(arguments: list[str]) -> int:
    """Runs `list` and returns the exit status."""
    flags = parse(ListFlags, arguments, "list")
    from mtljax.cli.catalog import select
    from mtljax.cli.tables import catalog_table, entry_details
    from mtljax.utils.terminal import console

    selection, by_name = select(flags.words)
    for kind, entries in selection.items():
        in_full = by_name or flags.verbose
        blocks = [entry_details(kind, entry) for entry in entries]
        console.print(*(blocks if in_full else [catalog_table(kind, entries)]), soft_wrap=False)
    return 0
