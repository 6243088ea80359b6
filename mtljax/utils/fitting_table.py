"""Table for terminals of any width."""

import copy
import dataclasses
import textwrap
from collections.abc import Collection
from typing import Any

from rich.console import Console, ConsoleOptions, RenderResult
from rich.markup import escape
from rich.table import Table
from rich.text import Text

FOLDED = 16
"""Characters of a text column, or of a header, below which columns are left out instead."""


class FittingTable(Table):
    """Table that leaves out columns, from the right, where the terminal is too narrow.

    Numbers are never cut or broken. Text is folded, not cut. A line names the columns that are
    left out.
    """

    def __init__(self, *, keep: Collection[str], title: str | None = None, **settings: Any):
        """Initializes the table.

        Args:
          keep: Headers of columns that are always shown.
          title: Title without markup.
          **settings: Arguments of `rich.table.Table`.
        """
        title = None if title is None else escape(title)
        aligned = {"title_justify": "left", "caption_justify": "left"}
        super().__init__(title=title, **{**aligned, **settings})
        self._keep, self._names = keep, list[str]()

    def add_texts(self, header: str) -> None:
        """Adds a column of texts, which may be folded."""
        self.add_column(escape(header), overflow="fold")
        self._names.append(header)

    def add_numbers(self, header: str, **settings: Any) -> None:
        """Adds a column of numbers, which are never broken."""
        lines = textwrap.wrap(header, FOLDED, break_on_hyphens=False)
        self.add_column(escape("\n".join(lines)), justify="right", no_wrap=True, **settings)
        self._names.append(header)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        fitted = copy.copy(self)
        shown = list(range(len(self.columns)))
        droppable = [i for i in shown if self._names[i] not in self._keep]
        left_out: list[str] = []
        while droppable and _needed_width(fitted, console, options) > options.max_width:
            left_out.insert(0, self._names[droppable[-1]])
            shown.remove(droppable.pop())
            columns = [self.columns[i] for i in shown]
            fitted.columns = [dataclasses.replace(c, _index=i) for i, c in enumerate(columns)]
        yield from Table.__rich_console__(fitted, console, options)
        if left_out:
            yield Text(f"not shown, for lack of width: {', '.join(left_out)}", overflow="fold")


def _needed_width(table: Table, console: Console, options: ConsoleOptions) -> int:
    """Returns the width with texts folded as narrowly as they may be."""
    narrow = copy.copy(table)
    narrow.columns = [
        c if c.no_wrap else dataclasses.replace(c, max_width=FOLDED) for c in table.columns
    ]
    return console.measure(narrow, options=options.update(max_width=100_000)).maximum
