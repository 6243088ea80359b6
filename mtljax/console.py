"""What a run says on the terminal: a live line for people, plain lines for files."""

from collections.abc import Sequence
from typing import Any

from rich import box
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
)
from rich.table import Table

from mtljax.catalog import Entry
from mtljax.tasks import Task
from mtljax.utils.terminal import console, say


class Reporter:
    """Progress of training: a bar on a terminal, a line per evaluation elsewhere."""

    def __init__(self, total: int, done: int, *, quiet: bool = False):
        self._quiet = quiet
        self._live = None
        if console.is_terminal and not quiet:
            self._live = Progress(
                TextColumn("training"),
                BarColumn(bar_width=24),
                MofNCompleteColumn(),
                TimeRemainingColumn(),
                TextColumn("{task.fields[numbers]}"),
                console=console,
                transient=True,
            )
            self._bar = self._live.add_task("", total=total, completed=done, numbers="compiling")
            self._live.start()
        self._total = total
        self._last: dict[str, Any] | None = None

    def train(self, line: dict[str, Any]) -> None:
        """A training line of metrics.jsonl."""
        self._last = line
        if self._live is not None:
            self._live.update(self._bar, completed=line["step"], numbers=_numbers(line))

    def validation(self, line: dict[str, Any], tasks: Sequence[Task], best: bool) -> None:
        """A validation line of metrics.jsonl."""
        if self._quiet:
            return
        values = "  ".join(
            f"{task.name} {task.main_metric} {line['validation'][task.name][task.main_metric]:.4g}"
            for task in tasks
        )
        numbers = _numbers(self._last) if self._last is not None else ""
        mark = "  best so far" if best else ""
        say(f"step {line['step']:>{len(str(self._total))}}  {numbers}  validation: {values}{mark}")

    def close(self) -> None:
        if self._live is not None:
            self._live.stop()


def _numbers(line: dict[str, Any]) -> str:
    """Losses, weights and speed in one short line; many tasks are cut short."""
    losses = list(line["loss"].items())
    weights = line.get("weight", {})
    parts = []
    for name, loss in losses[:4]:
        weight = f" (x{weights[name]:.2f})" if name in weights else ""
        parts.append(f"{name} {loss:.3g}{weight}")
    if len(losses) > 4:
        parts.append(f"+{len(losses) - 4} tasks")
    return f"loss {', '.join(parts)}  {line['examples_per_second']:,.0f} examples/s"


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
