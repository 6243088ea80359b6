"""Catalog of everything that is chosen by name, read from signatures and docstrings, for `list`."""

import ast
import functools
import inspect
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import docstring_parser

from mtljax.balancing import BALANCERS
from mtljax.balancing.describe import describe as describe_balancer
from mtljax.build import FUSION_HIDDEN
from mtljax.config import experiment_folder, experiment_names
from mtljax.data import AUGMENTATIONS, SOURCES
from mtljax.exporters import EXPORTS
from mtljax.models import FUSIONS, TRUNKS
from mtljax.optim.optimizers import NON_LITERAL_ARGUMENTS, OPTIMIZERS, SCHEDULES
from mtljax.step.attacks import ATTACKS
from mtljax.step.distillation import DISTILLATIONS
from mtljax.tasks import TASKS
from mtljax.utils.registry import nearest

SECTION = re.compile(r"^(Args|Attributes|Examples?|Raises|References|Returns|Yields):+\s*$", re.M)


class Kind(NamedTuple):
    """Dict of choices and the arguments that are not set by the user."""

    choices: Mapping[str, Callable]
    hidden: tuple[str, ...] = ()


DICTS = {
    "balancers": Kind(BALANCERS),
    "trunks": Kind(TRUNKS),
    "fusions": Kind(FUSIONS, FUSION_HIDDEN),
    "tasks": Kind(TASKS),
    "sources": Kind(SOURCES, ("wanted",)),
    "attacks": Kind(ATTACKS),
    "distillations": Kind(DISTILLATIONS),
    "augmentations": Kind(AUGMENTATIONS, ("tasks",)),
    "optimizers": Kind(OPTIMIZERS, ("learning_rate", *NON_LITERAL_ARGUMENTS)),
    "schedules": Kind(SCHEDULES, ("peak", "steps")),
    "exports": Kind(EXPORTS, ("model",)),
}
KINDS = ("experiments", *DICTS)


class Argument(NamedTuple):
    """Argument of an entry."""

    name: str
    type: str
    default: str
    """Empty if the argument is required."""
    help: str


class Entry(NamedTuple):
    """One choice."""

    name: str
    description: str
    papers: str
    reads: str = ""
    """For balancers: losses, gramian or jacobian."""
    arguments: tuple[Argument, ...] = ()

    @property
    def summary(self) -> str:
        """First paragraph of the description."""
        return " ".join(self.description.split("\n\n")[0].split())


def entries(kind: str) -> list[Entry]:
    """All entries of a kind, one of `KINDS`."""
    if kind == "experiments":
        files = {name: experiment_folder() / f"{name}.py" for name in experiment_names()}
        documented = {
            name: ast.get_docstring(ast.parse(f.read_text())) for name, f in files.items()
        }
        return [_entry(name, text) for name, text in documented.items()]
    choices, hidden = DICTS[kind]
    documented_choices = []
    for name, choice in choices.items():
        entry = _entry(name, inspect.getdoc(_function(choice)))
        entry = entry._replace(arguments=tuple(_arguments(choice, hidden)))
        if kind == "balancers":
            entry = entry._replace(reads=describe_balancer(name).needs.value)
        documented_choices.append(entry)
    return documented_choices


def select(words: Sequence[str]) -> tuple[dict[str, list[Entry]], bool]:
    """Entries requested by the arguments of `list`.

    Args:
      words: Kinds, or one kind and names of its entries; kinds in singular or plural. Empty: all.

    Returns:
      ({kind: entries}, True if the entries were requested by name).

    Raises:
      ValueError: Unknown kind or name.
    """
    kinds = {word: kind for kind in KINDS for word in (kind, kind.removesuffix("s"))}
    first, *names = words or KINDS
    if first not in kinds:
        raise ValueError(f"unknown kind {first!r}{nearest(first, KINDS)}")
    if all(word in kinds for word in names):
        return {kinds[word]: entries(kinds[word]) for word in (first, *names)}, False
    by_name = {entry.name: entry for entry in entries(kinds[first])}
    for name in names:
        if name not in by_name:
            raise ValueError(
                f"unknown {kinds[first].removesuffix('s')} {name!r}{nearest(name, by_name)}"
            )
    return {kinds[first]: [by_name[name] for name in names]}, True


def _entry(name: str, text: str | None) -> Entry:
    description, *sections = SECTION.split(inspect.cleandoc(text or ""))
    contents = dict(zip(sections[::2], sections[1::2], strict=True))
    papers = contents.get("References", "").strip().split("\n\n")[0]
    return Entry(name, description.strip(), " ".join(papers.split()))


def _function(choice: Callable) -> Any:
    return choice.func if isinstance(choice, functools.partial) else choice


def _arguments(choice: Callable, hidden: Sequence[str]) -> Iterator[Argument]:
    function = _function(choice)
    documented = inspect.getmro(function) if inspect.isclass(function) else (function,)
    help_of = {
        name.strip(): " ".join((parameter.description or "").split())
        for thing in reversed(documented[:-1] or documented)
        for parameter in docstring_parser.parse_from_object(
            thing, docstring_parser.DocstringStyle.GOOGLE
        ).params
        for name in parameter.arg_name.split(",")
    }
    for name, parameter in inspect.signature(choice).parameters.items():
        if name in hidden or parameter.kind is parameter.VAR_KEYWORD:
            continue
        default = parameter.default
        yield Argument(
            name,
            inspect.formatannotation(parameter.annotation).replace("typing.", "")
            if parameter.annotation is not parameter.empty
            else "",
            "" if default is parameter.empty else getattr(default, "__name__", repr(default)),
            help_of.get(name, ""),
        )
