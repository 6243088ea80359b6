"""Page of the command line, from the parser of each verb."""

import argparse
import importlib
import pkgutil
import re
import unittest.mock
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import tyro
from docstrings import cell
from folders import write_folder
from sphinx.application import Sphinx

import mtljax.cli.verbs
from mtljax.cli.flags import PROGRAM, REGISTRY
from mtljax.cli.verbs import VERBS, run_verb

FOLDER = Path(__file__).parents[1] / "reference" / "command_line"
EXPERIMENT = "digits"
"""Experiment whose values are shown as defaults."""
INTRODUCTION = f"""\
# Command line

`{PROGRAM} VERB --flag value ...`; without a verb, `train`. `{PROGRAM} VERB --help` prints the same.
Verbs with `--experiment` also take the [fields of the experiment](experiment.md) as flags. The exit
status is 0 for success, 1 for a failure and 2 for [invalid input](../errors/index.md).

```{{toctree}}
:hidden:

experiment
```
"""
FIELDS = f"""\
# Fields of an experiment

Each field of `mtljax.Experiment` is a flag of every verb that takes `--experiment`. The defaults
are those of the experiment `{EXPERIMENT}`.
"""


class _Parsed(Exception):
    """Raised in place of running a verb: its flags and their defaults."""


def parser_of(verb: str) -> tuple[argparse.ArgumentParser, set[str]]:
    """The parser of a verb, with the experiment's fields if it takes one.

    Returns:
      (the parser, names of the flags that are not fields of the experiment).
    """

    def capture(flags: type, arguments: Sequence[str], verb: str, default: Any = None) -> None:
        raise _Parsed(flags, default)

    names = [m.name for m in pkgutil.iter_modules(mtljax.cli.verbs.__path__, "mtljax.cli.verbs.")]
    modules = [module for module in map(importlib.import_module, names) if hasattr(module, "parse")]
    patches = [unittest.mock.patch.object(module, "parse", capture) for module in modules]
    for patch in patches:
        patch.start()
    try:
        run_verb(verb, ["--experiment", EXPERIMENT])
    except _Parsed as parsed:
        flags, default = parsed.args
    finally:
        for patch in patches:
            patch.stop()
    flag_names = flags if default is None else type(default.verb_flags)
    settings = {} if default is None else {"default": default}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        parser = tyro.extras.get_parser(
            flags,
            prog=f"{PROGRAM} {verb}",
            config=(tyro.conf.AvoidSubcommands,),
            registry=REGISTRY,
            **settings,
        )
    return parser, set(flag_names.__dataclass_fields__)


def rows(parser: argparse.ArgumentParser) -> list[tuple[str, str, str, str]]:
    """Flag, kind of value, default and help of each argument."""
    result = []
    for action in parser._actions:
        if "--help" in action.option_strings:
            continue
        name = ", ".join(action.option_strings) or str(action.metavar or action.dest)
        text, default = str(action.help or ""), ""
        if match := re.search(r"\s*\((?:default|required)[^()]*(?:\([^()]*\)[^()]*)*\)\s*$", text):
            default = match[0].strip(" ()\n").removeprefix("default:").strip()
            text = text[: match.start()]
        value = str(action.metavar or "") if action.option_strings else ""
        result.append((name, value, default, text))
    return result


def is_field(row: tuple[str, ...], flag_names: set[str]) -> bool:
    """True for a field of the experiment, not a flag of the verb."""
    name = row[0].removeprefix("--").partition(",")[0].replace("-", "_")
    return row[0].startswith("--") and name not in flag_names


def pages() -> dict[str, str]:
    """A page with all verbs, and one with the fields of an experiment."""
    lines = [INTRODUCTION]
    for verb, description in VERBS.items():
        parser, flag_names = parser_of(verb)
        verb_rows = [row for row in rows(parser) if not is_field(row, flag_names)]
        lines += [f"(verb-{verb})=", f"## {verb}", "", description.summary, "", *_table(verb_rows)]
    parser, flag_names = parser_of("train")
    experiment = [
        FIELDS,
        *_table([row for row in rows(parser) if is_field(row, flag_names)]),
    ]
    return {"index.md": "\n".join(lines), "experiment.md": "\n".join(experiment)}


def _table(result: Sequence[tuple[str, str, str, str]]) -> list[str]:
    lines = ["| flag | value | default | meaning |", "|---|---|---|---|"]
    for name, value, default, text in result:
        codes = (f"`{x}`".replace("|", "\\|") if x else "" for x in (name, value, default))
        lines.append(f"| {' | '.join(codes)} | {cell(text)} |")
    return [*lines, ""]


def write_pages(app: Sphinx) -> None:
    """Writes the pages."""
    write_folder(FOLDER, pages())


def setup(app: Sphinx) -> dict[str, Any]:
    """Connects to Sphinx's events."""
    app.connect("builder-inited", write_pages)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
