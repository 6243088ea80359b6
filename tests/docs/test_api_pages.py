"""The API pages that CONTRIBUTING.md says how to make."""

import html
import importlib
import inspect
import os
import pkgutil
import re
import sys
from pathlib import Path

import pytest
from support.cli import run

import mtljax

ROOT = Path(__file__).parents[2]
MODULES = ["mtljax", *(m.name for m in pkgutil.walk_packages(mtljax.__path__, "mtljax."))]


def test_every_module_and_everything_public_in_it_is_described():
    missing = []
    for name in MODULES:
        module = importlib.import_module(name)
        if not module.__doc__:
            missing.append(name)
        for word, thing in vars(module).items():
            ours = getattr(thing, "__module__", None) == name and not word.startswith("_")
            code = inspect.isclass(thing) or inspect.isfunction(thing)
            if ours and code and thing.__name__ != "<lambda>" and not inspect.getdoc(thing):
                missing.append(f"{name}.{word}")
    assert not missing


def words(page):
    """What a person reads on it."""
    return html.unescape(re.sub(r"<[^>]+>", "", page.read_text()))


@pytest.mark.slow
def test_a_page_is_made_of_every_module(tmp_path):
    pytest.importorskip("pdoc")
    pages = ROOT / "docs" / "api.py"
    command = [sys.executable, "-W", "error", str(pages)]
    environment = {**os.environ, "PYTHONPATH": ":".join([str(ROOT), *sys.path])}
    done = run(command, cwd=tmp_path, env=environment)
    assert done.returncode == 0, done.stderr
    for name in MODULES:
        summary = (importlib.import_module(name).__doc__ or "").split()[0]
        assert summary in words(tmp_path / "site" / Path(*name.split(".")).with_suffix(".html"))
    assert "jacobian: Float[Array, 'T D']," in words(tmp_path / "site/mtljax/balancing/base.html")
