"""Catalog of everything that is chosen by name, read from signatures and docstrings, for `list`."""

import ast
import functools
import inspect
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import docstring_parser

from mtljax.balancing import BALANCERS, COMBINATORS
from mtljax.balancing import describe as describe_balancer
from mtljax.build import FUSION_HIDDEN
from mtljax.comparison.engines import ENGINES
from mtljax.config.files import experiment_folder, experiment_names
from mtljax.data import AUGMENTATIONS, SOURCES
from mtljax.data.sources import HIDDEN
from mtljax.exporters import EXPORTS
from mtljax.merging import MERGES
from mtljax.models import FUSIONS, TRUNKS
from mtljax.models.conditioning import CONDITIONINGS
from mtljax.models.conditioning import HIDDEN as CONDITIONING_HIDDEN
from mtljax.optim.optimizers import NON_LITERAL_ARGUMENTS, OPTIMIZERS
from mtljax.optim.schedules import SCHEDULES
from mtljax.parallel import SHARDINGS
from mtljax.step.attacks import ATTACKS
from mtljax.step.distillation import DISTILLATIONS
from mtljax.tasks import TASKS
from mtljax.utils.registry import nearest

SECTION = re.compile(r"^(Args|Attributes|Examples?|Raises|References|Returns|Yields):+\s*$", re.M)
"""Heading of a section of a docstring."""


class Kind(NamedTuple):
    """Dict of choices and the arguments that are not set by the user."""

    choices: Mapping[str, Callable]
    """Name -> function or class."""
    hidden: tuple[str, ...] = ()
    """Names of the arguments that are not set by the user."""


DICTS = {
    "balancers": Kind(BALANCERS),
    "combinators": Kind(COMBINATORS, ("balancer", "balancers")),
    "trunks": Kind(TRUNKS),
    "fusions": Kind(FUSIONS, FUSION_HIDDEN),
    "conditionings": Kind(CONDITIONINGS, CONDITIONING_HIDDEN),
    "tasks": Kind(TASKS),
    "sources": Kind(SOURCES, HIDDEN),
    "attacks": Kind(ATTACKS),
    "distillations": Kind(DISTILLATIONS),
    "augmentations": Kind(AUGMENTATIONS, ("tasks",)),
    "optimizers": Kind(OPTIMIZERS, ("learning_rate", *NON_LITERAL_ARGUMENTS)),
    "schedules": Kind(SCHEDULES, ("peak", "steps")),
    "shardings": Kind(SHARDINGS),
    "exports": Kind(EXPORTS, ("model",)),
    "merges": Kind(MERGES),
    "engines": Kind(ENGINES),
}
"""Kind of component -> its registry."""
KINDS = ("experiments", *DICTS)
"""What `list` shows."""


class Argument(NamedTuple):
    """Argument of an entry."""

    name: str
    """Name in text such as `cagrad:c=0.4`."""
    type: str
    """Type as written in the source code."""
    default: str
    """Empty if the argument is required."""
    help: str
    """Description in the docstring."""


class Entry(NamedTuple):
    """One choice."""

    name: str
    """Name by which it is chosen."""
    description: str
    """Docstring without its sections."""
    papers: str
    """Section "References" of the docstring."""
    reads: str = ""
    """For balancers: losses, gramian or jacobian."""
    combinators: tuple[str, ...] = ()
    """For balancers: combinators that take it."""
    cost: float | None = None
    """For balancers: time of a step as a multiple of one with `ew`, if it was measured."""
    family: str = ""
    """For balancers: the family."""
    arguments: tuple[Argument, ...] = ()
    """Arguments that a user can set."""

    @property
    def summary(self) -> str:
        """First paragraph of the description."""
        return " ".join(self.description.split("\n\n")[0].split())


def entries(kind: str) -> list[Entry]:
    """All entries of a kind, one of `KINDS`."""
    if kind == "experiments":
        texts = ((n, (experiment_folder() / f"{n}.py").read_text()) for n in experiment_names())
        return [_entry(name, ast.get_docstring(ast.parse(text))) for name, text in texts]
    choices, hidden = DICTS[kind]
    return [
        _entry(name, inspect.getdoc(_sources(choice)[0]))._replace(
            arguments=tuple(_arguments(choice, hidden)),
            **(_balancer_fields(name) if kind == "balancers" else {}),
        )
        for name, choice in choices.items()
    ]


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


def _entry(name: str, docstring: str | None) -> Entry:
    description, *sections = SECTION.split(inspect.cleandoc(docstring or ""))
    contents = dict(zip(sections[::2], sections[1::2], strict=True))
    papers = contents.get("References", "").strip().split("\n\n")[0]
    return Entry(name, description.strip(), " ".join(papers.split()))


def _balancer_fields(name: str) -> dict[str, Any]:
    found = describe_balancer(name)
    fields = {"combinators": found.combinators, "cost": found.cost, "family": found.family}
    return {"reads": found.needs.value, **fields}


def _sources(choice: Callable) -> list[Any]:
    """Objects whose docstrings describe the arguments of a choice, most specific first."""
    function: Any = choice.func if isinstance(choice, functools.partial) else choice
    function = inspect.unwrap(function)
    if inspect.isclass(function):
        return list(inspect.getmro(function)[:-1])
    references = re.findall(r"see `(\w+)`", inspect.getdoc(function) or "")
    module = vars(inspect.getmodule(function))
    return [function, *(module[name] for name in references if name in module)]


def _arguments(choice: Callable, hidden: Sequence[str]) -> Iterator[Argument]:
    style = docstring_parser.DocstringStyle.GOOGLE
    help_of = {
        name.strip(): " ".join((argument.description or "").split())
        for source in reversed(_sources(choice))
        for argument in docstring_parser.parse_from_object(source, style).params
        for name in argument.arg_name.split(",")
    }
    for name, parameter in inspect.signature(choice).parameters.items():
        if name in hidden or parameter.kind is parameter.VAR_KEYWORD:
            continue
        default = parameter.default
        yield Argument(
            name,
            _type_text(parameter),
            "" if default is parameter.empty else getattr(default, "__name__", repr(default)),
            help_of.get(name, ""),
        )


def _type_text(parameter: inspect.Parameter) -> str:
    if parameter.annotation is parameter.empty or "Array" in str(parameter.annotation):
        # Numbers of optax are annotated as arrays of any kind.
        return "" if parameter.default is parameter.empty else type(parameter.default).__name__
    return re.sub(r"\b[a-z_]+\.", "", inspect.formatannotation(parameter.annotation))
