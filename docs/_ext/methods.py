"""Pages of methods: balancers, fusions, trunks, tasks and all else that is chosen by name."""

import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jinja2
from docstrings import cell, inline, markdown, papers, year
from drawings import draw_update
from folders import write_folder
from relation import ARCHITECTURES, NAMES, mentions
from sphinx.application import Sphinx

from examples import Example, command, example
from mtljax.cli import catalog
from mtljax.cli.catalog import DICTS, Entry
from mtljax.tasks import TASKS

EXT = Path(__file__).parent
FOLDER = EXT.parent / "methods"
FORMULAS = tomllib.loads((EXT / "formulas.toml").read_text())
FUSION_COSTS = EXT.parents[1] / "benchmarks" / "fusions.md"

PAGE_EACH = ("fusions", "trunks", "tasks")
"""Kinds with a page per entry. The balancers have one per family, all other kinds have one page."""
TITLES = {
    "balancers": "Balancers",
    "combinators": "Combinators of balancers",
    "fusions": "Fusions",
    "trunks": "Trunks",
    "tasks": "Kinds of tasks",
    "conditionings": "Conditioning on a preference",
    "merges": "Merging of networks",
    "distillations": "Distillation",
    "attacks": "Adversarial attacks",
    "augmentations": "Augmentations",
    "optimizers": "Optimizers (optax)",
    "schedules": "Learning rate schedules",
    "sources": "Sources of data",
    "exports": "Export formats",
    "shardings": "Sharding of parameters",
    "engines": "Engines of comparisons",
}
TEMPLATES = jinja2.Environment(
    loader=jinja2.FileSystemLoader(EXT / "templates"),
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
    keep_trailing_newline=True,
)
TEMPLATES.filters |= {"cell": cell, "inline": inline, "papers": papers, "mentions": mentions}


class Method(NamedTuple):
    """Contents of the section of a method."""

    entry: Entry
    kind: str
    formula: str
    where: str
    """Symbols of the formula that neither the text nor the index page explains."""
    text: str
    convention: str
    """Paragraphs in Markdown, the second those on the convention followed."""
    command: str
    example: Example | None
    drawing: str
    facts: Mapping[str, str]
    """Name -> text in Markdown."""

    @property
    def label(self) -> str:
        """Label of the section."""
        return label(self.kind, self.entry.name)


def label(kind: str, name: str) -> str:
    """Label of the section of a method."""
    return f"{kind.removesuffix('s')}-{name}".replace("_", "-")


def file_name(title: str) -> str:
    """Name of a page, from its title."""
    return re.sub(r"\W+", "_", title.lower()).strip("_")


def method(kind: str, entry: Entry, targets: Mapping[str, str]) -> Method:
    """Collects what the page of a method shows, and runs its example."""
    before, _, after = entry.description.partition("Convention: ")
    result = example(kind, entry.name)
    return Method(
        entry=entry,
        kind=kind,
        formula=FORMULAS.get(kind, {}).get(entry.name, ""),
        where=FORMULAS["where"].get(kind, {}).get(entry.name, ""),
        text=markdown(before, {n: t for n, t in targets.items() if n != entry.name}),
        convention=markdown(after, targets),
        command=command(kind, entry.name),
        example=result,
        drawing=draw_update(result.output) if kind == "balancers" and result else "",
        facts=_facts(kind, entry),
    )


def _facts(kind: str, entry: Entry) -> dict[str, str]:
    facts = {"Paper": papers(entry.papers)} if entry.papers else {}
    if kind == "balancers":
        cost = "not measured" if entry.cost is None else f"{entry.cost:.2f} x `ew`"
        links = (f"[`{n}`](#{label('combinators', n)})" for n in entry.combinators)
        facts |= {"Reads": entry.reads, "Time of a step": cost, "Combinators": ", ".join(links)}
    if kind == "fusions" and (row := fusion_costs().get(entry.name)):
        facts["Time of a step"] = f"{row['time / none']} x `none`"
        facts["Parameters"] = f"{row['parameters / none']} x `none`"
    return facts


def fusion_costs() -> dict[str, dict[str, str]]:
    """Rows of the table in benchmarks/fusions.md; the first of each name, on the same trunk."""
    rows = [line.strip("| \n").split(" | ") for line in FUSION_COSTS.read_text().splitlines()]
    header = next(row for row in rows if row[0] == "fusion")
    result = [dict(zip(header, row, strict=True)) for row in rows if len(row) == len(header)]
    return {row["fusion"]: row for row in reversed(result)}


def targets_of(kind: str) -> dict[str, str]:
    """Names that become links in the text of a kind -> labels."""
    kinds = ("balancers", "combinators") if kind in ("balancers", "combinators") else (kind,)
    # A combinator that is also a balancer is described as a combinator.
    return {name: label(k, name) for k in kinds for name in DICTS[k].choices}


def metrics_of(name: str) -> list[tuple[str, str, str]]:
    """Metrics of a kind of task: name, label and direction; the main one first."""
    task = TASKS[name]
    direction = {True: "higher is better", False: "lower is better", None: "not compared"}
    names = sorted(task.metric_specs, key=lambda metric: metric != task.main_metric)
    specs = [(metric, task.metric_specs[metric]) for metric in names]
    return [(metric, spec.label, direction[spec.higher_is_better]) for metric, spec in specs]


def pages() -> dict[str, str]:
    """All pages: path -> text."""
    result: dict[str, str] = {}
    methods = {}
    for kind in TITLES:
        targets = targets_of(kind)
        methods[kind] = [method(kind, entry, targets) for entry in catalog.entries(kind)]
    for kind, entries in methods.items():
        result |= kind_pages(kind, entries)
    relation = TEMPLATES.get_template("relation.md").render(
        balancers=methods["balancers"],
        targets=targets_of("balancers"),
        names=NAMES,
        architectures=ARCHITECTURES,
    )
    index = TEMPLATES.get_template("index.md").render(titles=TITLES)
    return result | {"index.md": index, "relation.md": relation}


def kind_pages(kind: str, methods: list[Method]) -> dict[str, str]:
    """Pages of a kind."""
    render = TEMPLATES.get_template("methods.md").render
    if kind != "balancers" and kind not in PAGE_EACH:
        page = render(title=TITLES[kind], methods=methods, each=False, metrics={})
        return {f"{kind}.md": page}
    if kind == "balancers":
        groups: dict[str, list[Method]] = {}
        for one in methods:
            groups.setdefault(one.entry.family, []).append(one)
    else:
        groups = {one.entry.name: [one] for one in methods}
    result = {}
    for title, group in groups.items():
        metrics = metrics_of(title) if kind == "tasks" else []
        text = render(title=title, methods=group, each=kind in PAGE_EACH, metrics=metrics)
        result[f"{kind}/{file_name(title)}.md"] = text
    overview = TEMPLATES.get_template("overview.md").render(
        kind=kind,
        title=TITLES[kind],
        methods=methods,
        pages=[f"{kind}/{file_name(title)}" for title in groups],
        years={one.entry.name: year(one.entry.papers) for one in methods},
        costs=fusion_costs(),
    )
    return result | {f"{kind}.md": overview}


def write_pages(app: Sphinx) -> None:
    """Writes all pages of methods."""
    write_folder(FOLDER, pages())


def setup(app: Sphinx) -> dict[str, Any]:
    """Connects to Sphinx's events."""
    app.connect("builder-inited", write_pages)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
