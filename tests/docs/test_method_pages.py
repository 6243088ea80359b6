"""The generated pages of methods."""

import tomllib
from pathlib import Path

import pytest

from mtljax.balancing import BALANCERS
from mtljax.cli.catalog import DICTS
from mtljax.models import FUSIONS

EXT = Path(__file__).parents[2] / "docs" / "_ext"
FORMULAS = tomllib.loads((EXT / "formulas.toml").read_text())


@pytest.fixture
def extension(monkeypatch):
    """A function from the name of a module of the extension to the module."""
    monkeypatch.syspath_prepend(str(EXT))
    return pytest.importorskip


def test_every_kind_has_a_page(extension):
    pytest.importorskip("sphinx")
    assert extension("methods").TITLES.keys() == DICTS.keys()


def test_every_balancer_and_fusion_has_a_formula_and_no_formula_lacks_a_method():
    assert FORMULAS["balancers"].keys() == BALANCERS.keys()
    assert FORMULAS["fusions"].keys() == FUSIONS.keys()
    for kind, formulas in FORMULAS.items():
        assert formulas.keys() <= DICTS[kind].choices.keys()


@pytest.mark.full
@pytest.mark.parametrize("kind", FORMULAS)
def test_every_formula_can_be_drawn(kind, extension):
    pytest.importorskip("sphinx")
    mathml = extension("mathml")
    for formula in FORMULAS[kind].values():
        assert "<math" in mathml.to_mathml(formula, as_block=True)


def test_text_that_is_no_formula_is_escaped_and_known_names_are_links(extension):
    inline = extension("docstrings").inline
    assert inline("a [T, D] *b* <x> g_t |g_t|^2") == (
        r"a \[T, D\] \*b\* \<x\> $g_{t}$ \|$g_{t}$\|²"
    )
    assert inline("`cagrad` and `c`", {"cagrad": "balancer-cagrad"}) == (
        "[`cagrad`](#balancer-cagrad) and `c`"
    )


def test_identifiers_of_papers_are_links_and_not_years(extension):
    docstrings = extension("docstrings")
    reference = "Chen et al., 2018, arXiv:2010.06808"
    assert "[arXiv:2010.06808](https://arxiv.org/abs/2010.06808)" in docstrings.papers(reference)
    assert docstrings.year(reference) == 2018
    assert docstrings.year("arXiv:2010.06808") is None


def test_methods_named_as_those_of_other_libraries_exist(extension):
    relation = extension("relation")
    assert {row[0] for row in relation.NAMES} <= BALANCERS.keys()
    assert {row[0] for row in relation.ARCHITECTURES} <= FUSIONS.keys()
