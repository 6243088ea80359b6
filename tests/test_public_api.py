"""The names of `mtljax` that other code calls, and the price of importing them."""

import ast
import inspect
import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest

import mtljax

ROOT = Path(__file__).parents[1]
SUBPACKAGES = ["balancing", "data", "models", "tasks"]
HEAVY = ("orbax", "grain", "PIL", "matplotlib", "tensorflow_datasets")


def python(code):
    """What a fresh interpreter prints."""
    run = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=600
    )
    assert run.returncode == 0, run.stderr
    return run.stdout


def test_balancing_can_be_imported_without_the_rest():
    code = "import sys, mtljax.balancing; print(*sys.modules)"
    modules = python(code).split()
    own = [name for name in modules if name.partition(".")[0] == "mtljax"]
    assert {name.partition(".")[2].partition(".")[0] for name in own} == {"", "balancing"}
    assert len(own) <= 40
    assert not [name for name in modules if name.partition(".")[0] in HEAVY]


def test_names_are_right_even_after_every_module_was_imported():
    code = """
import importlib, pkgutil, warnings
import mtljax
for module in pkgutil.walk_packages(mtljax.__path__, "mtljax."):
    importlib.import_module(module.name)
for name in mtljax.__all__:
    thing = getattr(mtljax, name)
    print(name, type(thing).__name__, getattr(thing, "__module__", ""), thing.__name__)
"""
    for line in python(code).splitlines():
        name, kind, module, called = line.split(" ")
        if name in SUBPACKAGES:
            assert (kind, called) == ("module", f"mtljax.{name}")
        else:
            assert kind != "module"
            assert called == name
            assert module.startswith(f"mtljax.{mtljax._MODULES[name]}")


def test_no_lazy_name_is_a_submodule():
    modules = {module.name for module in pkgutil.iter_modules(mtljax.__path__)}
    assert not modules & set(mtljax._MODULES)
    assert set(mtljax.__all__) == set(mtljax._MODULES) | set(SUBPACKAGES)
    assert set(mtljax.__all__) <= set(dir(mtljax))


def test_type_checkers_see_the_same_names():
    tree = ast.parse(Path(mtljax.__file__).read_text())
    block = next(node for node in tree.body if isinstance(node, ast.If))
    seen = {alias.name: node.module for node in block.body for alias in node.names}
    expected = {name: f"mtljax.{module}" for name, module in mtljax._MODULES.items()}
    assert seen == expected | dict.fromkeys(SUBPACKAGES, "mtljax")


def test_unknown_names_are_refused():
    with pytest.raises(AttributeError, match="module 'mtljax' has no attribute 'balancers'"):
        mtljax.balancers  # noqa: B018


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("train", ["experiment", "workdir"]),
        ("compare", ["experiment", "workdir"]),
        ("evaluate", ["run", "split"]),
        ("predict", ["run", "images"]),
        ("export", ["run", "to", "output"]),
        ("load_run", ["path"]),
    ],
)
def test_functions_take_few_positional_arguments(name, parameters):
    signature = inspect.signature(getattr(mtljax, name))
    positional = [p.name for p in signature.parameters.values() if p.kind != p.KEYWORD_ONLY]
    assert positional == parameters
