"""Every public name is documented, and is on the pages of the API."""

import importlib
import inspect
from pathlib import Path

import pytest
from support import public_names

import mtljax

DOCS = Path(__file__).parents[2] / "docs"


def test_every_public_name_is_documented():
    assert len(public_names.own_names()) > 3000
    assert not public_names.undocumented()


def test_names_are_found_where_they_are_defined():
    expected = {
        f"{module}.{name}"
        for module in public_names.MODULES
        for name, thing in vars(importlib.import_module(module)).items()
        if getattr(thing, "__module__", "") == module and not name.startswith("_")
        if inspect.isclass(thing) or inspect.isfunction(thing)
    }
    assert expected <= public_names.own_names().keys()


def functions(name):
    """Functions and methods of a module, with their names."""
    module = importlib.import_module(name)
    for word, thing in vars(module).items():
        if getattr(thing, "__module__", "") == name:
            owners = vars(thing).items() if inspect.isclass(thing) else [(word, thing)]
            yield from ((f"{name}.{x}", f) for x, f in owners if inspect.isfunction(f))


def test_an_argument_that_a_docstring_describes_exists():
    stale = []
    for module in public_names.MODULES:
        for name, function in functions(module):
            described = public_names.arguments_of(inspect.cleandoc(function.__doc__ or ""))
            parameters = inspect.signature(function).parameters
            takes_any = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
            stale += [(name, x) for x in described - parameters.keys() if not takes_any]
    assert not stale


@pytest.mark.parametrize("name", mtljax.__all__)
def test_the_arguments_of_a_function_that_users_call_are_described(name):
    thing = getattr(mtljax, name)
    if inspect.isfunction(thing):
        described = public_names.arguments_of(inspect.getdoc(thing))
        assert inspect.signature(thing).parameters.keys() <= described


def test_every_module_is_on_a_page_of_the_api(monkeypatch):
    monkeypatch.syspath_prepend(str(DOCS / "_ext"))
    pytest.importorskip("sphinx")
    api = pytest.importorskip("api")
    pages = "\n".join(api.page(name) for name in api.MODULES if api.is_package(name))
    described = [line for line in pages.splitlines() if line.startswith(".. automodule::")]
    assert sorted(line.split()[-1] for line in described) == sorted(public_names.MODULES)
    assert pages.count("   :members:\n") == len(described)
