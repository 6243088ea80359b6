"""Heavy packages are not imported for help and for errors in flags."""

import sys

import pytest
from support.cli import ROOT, run

from mtljax.cli.verbs import VERBS

CODE = """
import sys
from mtljax.main import main
try:
    main(sys.argv[1:])
except SystemExit:
    pass
print(*sys.modules, file=sys.stderr)
"""

UNUSED = {
    *("orbax", "grain", "tensorflow", "tensorflow_datasets", "sklearn", "matplotlib", "PIL"),
    *("jinja2", "scipy.sparse", "scipy.ndimage", "scipy.stats", "cleanlab", "model_signing"),
}
"""Not needed to parse any flags."""
JAX = {"jax", "flax", "optax", "numpy", "mtljax.config"}
"""Needed only for the fields of an experiment."""


def imported(*arguments):
    """(standard output, modules imported by a command)."""
    done = run([sys.executable, "-c", CODE, *arguments], cwd=ROOT)
    assert done.returncode == 0, done.stderr
    return done.stdout, set(done.stderr.splitlines()[-1].split())


def test_help_imports_neither_jax_nor_the_parser():
    out, modules = imported("--help")
    assert out.startswith("usage: ")
    assert not modules & (UNUSED | JAX | {"tyro", "rich"})


@pytest.mark.parametrize("verb", VERBS)
def test_help_of_a_verb_does_not_import_jax(verb):
    out, modules = imported(verb, "--help")
    assert f"usage: python -m mtljax.main {verb} " in out
    assert not modules & (UNUSED | JAX)


@pytest.mark.parametrize("flags", [("--stepz", "5"), ("--steps", "x"), ("--help",)])
def test_flags_of_an_experiment_are_parsed_without_heavy_packages(flags):
    _, modules = imported("--experiment", "digits", *flags)
    assert "jax" in modules
    assert not modules & UNUSED
