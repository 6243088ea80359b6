"""What a run says on the terminal: a live line for people, plain lines for files."""

from collections.abc import Sequence
from typing import Any

from rich import box
from rich.markup import escape
from rich.table import Table

from mtljax.cli.catalog import Entry


def predictions_table(entries: list[dict[str, Any]]) -> Table:
    """A row per image, a column per task."""
    tasks = [name for name in entries[0] if name != "image"]
    table = Table("image", *tasks)
    for entry in entries:
        table.add_row(entry["image"], *(entry[task]["text"] for task in tasks))
    return table


def export_table(description: dict[str, Any]) -> Table:
    """What goes into an exported model and what comes out."""
    image = description["input"]
    table = Table("", "name", "type", "shape", caption_justify="left")
    table.caption = f"black is {image['black']:g}, white is {image['white']:g}"
    arrays = {image["name"]: image, **description["outputs"]}
    for name, told in arrays.items():
        shape = escape(str(told["shape"]).replace("'", ""))
        way = "in" if told is image else "out"
        table.add_row(way, name, told["dtype"], shape, end_section=told is image)
    return table


def catalog_table(kind: str, entries: Sequence[Entry]) -> Table:
    """What there is of a kind."""
    table = Table(title=kind, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("name", no_wrap=True)
    table.add_column("what it is", ratio=3)
    reads, papers = any(e.reads for e in entries), any(e.papers for e in entries)
    if reads:
        table.add_column("reads")
    if papers:
        table.add_column("paper", ratio=2)
    for entry in entries:
        row = [entry.name, entry.summary]
        table.add_row(*map(escape, row + [entry.reads] * reads + [entry.papers] * papers))
    return table
