"""Tables that the verbs print."""

import itertools
import re
from collections.abc import Mapping, Sequence
from typing import Any

from rich import box
from rich.console import Group, RenderableType
from rich.markup import escape
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from mtljax.balancing import COMBINATORS
from mtljax.cli.catalog import Entry
from mtljax.data.statistics import LabelStatistics
from mtljax.tasks import Task
from mtljax.utils.fitting_table import FittingTable


def predictions_table(entries: Sequence[Mapping[str, Any]]) -> Table:
    """Entries of `predict_files` with one row per image and task."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("image", overflow="fold", max_width=30)
    table.add_column("task", overflow="fold", max_width=20)
    table.add_column("prediction", overflow="fold")
    table.add_column("probability", justify="right")
    for entry in entries:
        name = entry["image"]
        for task, prediction in entry.items():
            if isinstance(prediction, Mapping):
                top = _highest_probability(prediction)
                probability = "" if top is None else f"{100 * top:.1f} %"
                table.add_row(*map(escape, (name, task, prediction["text"], probability)))
                name = ""
        if len(entry) > 4:  # the keys image, size and model_size, and several tasks
            table.add_section()
    return table


def _highest_probability(found: Mapping[str, Any]) -> float | None:
    """Returns the probability of the most probable class, or the highest score of a box."""
    prediction = found.get("prediction")
    if isinstance(prediction, Mapping):
        return max(prediction.get("scores", ()), default=None)
    return found.get("top", [{}])[0].get("probability")


def export_table(description: Mapping[str, Any]) -> Table:
    """Inputs and outputs of an exported model, from JSON of `mtljax.exporters.model.describe`."""
    image = description["input"]
    caption = f"black is {image['black']:g}, white is {image['white']:g}"
    table = FittingTable(keep=("", "name", "shape"), caption=caption)
    for name in ("", "name", "type", "shape"):
        table.add_texts(name)
    for name, array in {image["name"]: image, **description["outputs"]}.items():
        shape = escape(str(array["shape"]).replace("'", ""))
        direction = "in" if array is image else "out"
        table.add_row(direction, escape(name), array["dtype"], shape, end_section=array is image)
    return table


def survey_table(
    tasks: Sequence[Task], statistics: Mapping[str, Mapping[str, LabelStatistics]]
) -> Table:
    """Statistics of an experiment's data, {split: {task: statistics}}, with a row for each."""
    columns = ("task", "split", "labels", "missing", "values")
    table = FittingTable(keep=columns, box=box.SIMPLE_HEAD, pad_edge=False)
    for name in columns:
        (table.add_numbers if name in ("labels", "missing") else table.add_texts)(name)
    for task in tasks:
        for split, per_task in statistics.items():
            labels = per_task[task.name]
            percent = 100 * labels.missing / max(labels.present + labels.missing, 1)
            missing = f"{labels.missing} ({percent:.0f} %)" if labels.missing else "0"
            name = task.name if split == "train" else ""
            values = escape(labels.summary(task))
            table.add_row(escape(name), split, str(labels.present), missing, values)
        table.add_section()
    return table


def balancer_tables(entries: Sequence[Entry]) -> Group:
    """Balancers, a table for each family, with a letter for each combinator that takes them."""
    letters = combinator_letters()
    tables: list[RenderableType] = []
    for family, members in itertools.groupby(entries, key=lambda entry: entry.family):
        table = Table(title=family, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
        table.add_column("name", no_wrap=True, width=12)
        table.add_column("description and paper", ratio=1, overflow="fold")
        table.add_column("reads", width=8)
        table.add_column("step", justify="right", width=5)
        table.add_column("takes", no_wrap=True, width=len(letters))
        for entry in members:
            about = Text(entry.summary)
            about.append(f" {entry.papers}" if entry.papers else "", style="dim")
            takes = "".join(letters[name] for name in entry.combinators)
            cost = "-" if entry.cost is None else f"{entry.cost:.2f}"
            table.add_row(escape(entry.name), about, entry.reads, cost, takes)
        tables.append(table)
    legend = ", ".join(f"{letter} {name}" for name, letter in letters.items())
    note = (
        "step: time of a train step as a multiple of one with ew, three tasks on CPU. "
        f"takes: combinators, {legend}; see `list combinators`. Those of a chain are its last "
        "member; all but the last read only losses."
    )
    return Group(*tables, Text(note))


def combinator_letters() -> dict[str, str]:
    """The first letter of the name of each combinator that is not taken; name -> letter."""
    letters: dict[str, str] = {}
    for name in COMBINATORS:
        letters[name] = next(x for x in name if x.isalpha() and x not in letters.values())
    return letters


def catalog_table(kind: str, entries: Sequence[Entry]) -> Table | Group:
    """Entries of one kind, one row each."""
    if kind == "balancers":
        return balancer_tables(entries)
    table = Table(title=kind, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("name", no_wrap=True)
    table.add_column("description", ratio=3, overflow="fold")
    papers = any(entry.papers for entry in entries)
    if papers:
        table.add_column("paper", ratio=2, overflow="fold")
    for entry in entries:
        row = [entry.name, entry.summary]
        table.add_row(*map(escape, row + [entry.papers] * papers))
    return table


def entry_details(kind: str, entry: Entry) -> Group:
    """One entry with its entire description and all arguments."""
    blocks: list[RenderableType] = list(map(_reflow, entry.description.split("\n\n")))
    if entry.reads:
        cost = "" if entry.cost is None else f" A step takes {entry.cost:.2f} times one with ew."
        takes = ", ".join(entry.combinators) or "none"
        blocks.append(Text(f"Reads: {entry.reads}.{cost} Combinators: {takes}."))
    if entry.arguments:
        table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
        table.add_column("argument", no_wrap=True)
        table.add_column("default", max_width=20, overflow="fold")
        table.add_column("type", max_width=20, overflow="fold")
        table.add_column("description", ratio=1, overflow="fold")
        for argument in entry.arguments:
            default = argument.default or "required"
            table.add_row(*map(escape, (argument.name, default, argument.type, argument.help)))
        blocks.append(table)
    if entry.papers:
        blocks.append(Text(f"References: {entry.papers}", overflow="fold"))
    title = Text(f"{kind.removesuffix('s')} {entry.name}", style="bold")
    indented = (Padding(block, (0, 0, 1, 2)) for block in blocks)
    return Group(title, *indented)


def _reflow(paragraph: str) -> Text:
    """Joins the lines of a paragraph, unless they are indented, or of each item of its list."""
    if "\n- " in paragraph:
        return Text(re.sub(r"\n(?!- ) *", " ", paragraph))
    lines = paragraph.split("\n")
    is_text = not any(line.startswith(" ") for line in lines)
    return Text((" " if is_text else "\n").join(lines))
