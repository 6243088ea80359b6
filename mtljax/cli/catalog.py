"""What there is, for `list`: every kind of thing that is chosen by name, one line each."""

import ast
import inspect
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from mtljax.balancing import BALANCERS
from mtljax.balancing.describe import describe as describe_balancer
from mtljax.config import experiment_folder, experiment_names
from mtljax.data import AUGMENTATIONS, SOURCES
from mtljax.exporters import EXPORTS
from mtljax.models import FUSIONS, TRUNKS
from mtljax.optim.optimizers import OPTIMIZERS, SCHEDULES
from mtljax.step.attacks import ATTACKS
from mtljax.step.distillation import DISTILLATIONS
from mtljax.tasks import TASKS
from mtljax.utils.registry import nearest


class Entry(NamedTuple):
    """One thing that can be chosen."""

    name: str
    summary: str
    reads: str
    """For balancers: losses, gramian or jacobian."""
    papers: str


def _from_docstring(name: str, text: str | None) -> Entry:
    """The first sentence, and what stands under References."""
    body, _, papers = inspect.cleandoc(text or "").partition("References:\n")
    first = " ".join(body.split("\n\n")[0].split())
    return Entry(name, first, "", " ".join(papers.split("\n\n")[0].split()))


def _documented(things: Mapping[str, Any]) -> list[Entry]:
    return [_from_docstring(name, inspect.getdoc(thing)) for name, thing in things.items()]


def _balancers() -> list[Entry]:
    entries = []
    for name in BALANCERS:
        told = describe_balancer(name)
        entries.append(Entry(name, told.summary, told.needs.value, told.papers))
    return entries


def _experiments() -> list[Entry]:
    folder = experiment_folder()
    read = lambda name: ast.get_docstring(ast.parse((folder / f"{name}.py").read_text()))
    return [_from_docstring(name, read(name)) for name in experiment_names()]


KINDS: dict[str, Callable[[], list[Entry]]] = {
    "experiments": _experiments,
    "balancers": _balancers,
    "trunks": lambda: _documented(TRUNKS),
    "fusions": lambda: _documented(FUSIONS),
    "tasks": lambda: _documented(TASKS),
    "sources": lambda: _documented(SOURCES),
    "attacks": lambda: _documented(ATTACKS),
    "distillations": lambda: _documented(DISTILLATIONS),
    "augmentations": lambda: _documented(AUGMENTATIONS),
    "optimizers": lambda: _documented(OPTIMIZERS),
    "schedules": lambda: _documented(SCHEDULES),
    "exports": lambda: _documented(EXPORTS),
}


def entries(kind: str) -> list[Entry]:
    """All of a kind.

    Raises:
      ValueError: There is no such kind.
    """
    if kind not in KINDS:
        raise ValueError(f"cannot list {kind!r}{nearest(kind, KINDS)}")
    return KINDS[kind]()
