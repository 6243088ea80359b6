"""Every command that a page or a docstring shows is one that the program takes and does."""

import ast
import contextlib
import importlib.util
import pkgutil
import re
import runpy
import shlex
from pathlib import Path
from unittest import mock

import pytest
from support import pages, site_pages

import mtljax.cli.verbs
from mtljax.balancing import BALANCERS
from mtljax.cli.catalog import DICTS
from mtljax.cli.flags import parse
from mtljax.cli.verbs import VERBS
from mtljax.main import main

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", *sorted(DOCS.glob("*.md")), *sorted(DOCS.glob("*/*.md"))]
EXPERIMENTS = sorted((ROOT / "experiments").glob("*.py"))
COMMAND = re.compile(r"python3? -m mtljax\.main\b([^`\n]*)")
FEW = ("--steps", "3", "--eval-every", "3", "--log-every", "3")
"""What makes a run short."""


def commands(text):
    """What follows the program's name; behind two spaces or a comment sign it is explained."""
    end = r"""(?:  +|[;&|#)])(?=(?:[^"]*"[^"]*")*[^"]*$)"""  # not inside of quotes
    lines = (re.split(end, line.strip())[0] for line in COMMAND.findall(text))
    return [line for line in lines if line]


def of_methods():
    """The command on the generated pages for a method of each kind."""
    sample = runpy.run_path(str(DOCS / "_ext" / "examples.py"))
    return [sample["command"](kind, next(iter(DICTS[kind].choices))) for kind in sample["COMMANDS"]]


def everywhere():
    texts = [page.read_text() for page in PAGES] + of_methods()
    texts += [ast.get_docstring(ast.parse(path.read_text())) or "" for path in EXPERIMENTS]
    return sorted({line for text in texts for line in commands(text)})


class Understood(Exception):
    """The flags could be read."""


@pytest.mark.parametrize("line", everywhere())
def test_a_command_that_is_shown_is_understood(line, tmp_path, monkeypatch):
    def read(*arguments, **settings):
        parse(*arguments, **settings)
        raise Understood

    for module in pkgutil.iter_modules(mtljax.cli.verbs.__path__, "mtljax.cli.verbs."):
        monkeypatch.setattr(importlib.import_module(module.name), "parse", read, raising=False)
    nothing_read = lambda verb, arguments: contextlib.nullcontext(arguments)
    monkeypatch.setattr("mtljax.main.local_folders", nothing_read)  # no bucket of an example
    for name in pages.NAMES:
        pages.write_experiments(name, tmp_path)
    for page in site_pages.with_cells("tutorials"):
        site_pages.write_files(page, tmp_path)
    monkeypatch.chdir(tmp_path)
    with mock.patch.dict(BALANCERS), pytest.raises((Understood, SystemExit)) as ended:
        main(shlex.split(line))
    assert ended.type is Understood or ended.value.code == 0  # of --help


def trains(line):
    first, *rest = shlex.split(line)
    verb = first if first in VERBS else "train"
    return verb in ("train", "compare", "group") and "--help" not in rest


@pytest.mark.slow
@pytest.mark.parametrize("line", list(filter(trains, commands((ROOT / "README.md").read_text()))))
def test_a_command_of_the_readme_trains(line, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main([*shlex.split(line), *FEW]) == 0
    assert list(tmp_path.glob("runs/*/report.html"))
