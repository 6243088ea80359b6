"""The API pages that CONTRIBUTING.md says how to make."""

import importlib
import inspect
import pkgutil
from pathlib import Path

import pytest

import mtljax

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


@pytest.mark.slow
def test_a_page_is_made_of_every_module(tmp_path):
    pdoc = pytest.importorskip("pdoc")
    pdoc.render.configure(docformat="google")
    pdoc.pdoc("mtljax", output_directory=tmp_path)  # what it warns of is an error here
    for name in MODULES:
        page = tmp_path / Path(*name.split(".")).with_suffix(".html")
        summary = (importlib.import_module(name).__doc__ or "").split()[0]
        assert summary in page.read_text()
