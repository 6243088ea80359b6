"""The generated pages of methods."""

import re
import tomllib
from pathlib import Path
from xml.etree import ElementTree

import pytest

from mtljax.balancing import BALANCERS
from mtljax.cli import catalog
from mtljax.cli.catalog import DICTS
from mtljax.models import FUSIONS

EXT = Path(__file__).parents[2] / "docs" / "_ext"
FORMULAS = tomllib.loads((EXT / "formulas.toml").read_text())
WHERE = FORMULAS.pop("where")
LETTERS = {
    *("alpha", "beta", "gamma", "delta", "epsilon", "varepsilon", "zeta", "eta", "theta", "iota"),
    *("kappa", "lambda", "mu", "nu", "xi", "pi", "rho", "sigma", "tau", "phi", "varphi", "chi"),
    *("psi", "omega", "Gamma", "Delta", "Theta", "Lambda", "Xi", "Pi", "Sigma", "Phi", "Psi"),
}
VARIANTS = {"varepsilon": "epsilon", "varphi": "phi"}


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


def symbols(tex):
    """Letters of a formula, without words, operators and the base of exponentials."""
    tex = re.sub(r"\\(text|operatorname\*?|mathcal|begin|end)\{[^{}]*\}", " ", tex)
    commands = re.findall(r"\\([A-Za-z]+)", tex)
    letters = set(re.findall("[A-Za-z]", re.sub(r"\\[A-Za-z]+|e\^", " ", tex)))
    return letters | {VARIANTS.get(name, name) for name in commands if name in LETTERS}


def defined(formula):
    """Symbols that a formula defines: those at the left of = or an arrow, but for arguments."""
    clauses = re.split(r"\\q?quad", formula)
    sides = (re.split(r"=|\\leftarrow|\\sim", clause) for clause in clauses)
    return {name for side in sides if side[1:] for name in symbols(re.sub(r"[_^(].*", "", side[0]))}


def test_symbols_of_a_formula_and_those_that_it_defines():
    formula = r"h_i \leftarrow h_i - \min(a, e^{b}), \qquad \text{if } \varphi(c) = \mathcal{N}"
    assert symbols(formula) == {"h", "i", "a", "b", "phi", "c"}
    assert defined(formula) == {"h", "phi"}


@pytest.mark.parametrize("kind", FORMULAS)
def test_every_symbol_of_a_formula_is_explained(kind):
    legend = re.findall(r"^\| \$.*", (EXT / "templates" / "index.md").read_text(), re.M)
    known = set().union(*map(symbols, re.findall(r"\$(.*?)\$", " ".join(legend))))
    unknown = {}
    for entry in catalog.entries(kind):
        if entry.name not in FORMULAS[kind]:
            continue
        formula = FORMULAS[kind][entry.name]
        where = WHERE.get(kind, {}).get(entry.name, "")
        explained = set().union(*map(symbols, re.findall(r"\$(.*?)\$", where)))
        help_texts = (f"{argument.name} {argument.help}" for argument in entry.arguments)
        text = " ".join([entry.description, *help_texts])
        in_text = lambda name, text=text: re.search(rf"(?<![A-Za-z]){name}(?![A-Za-z])", text)
        rest = symbols(formula) - known - defined(formula) - explained
        if rest := sorted(name for name in rest if not in_text(name)):
            unknown[entry.name] = rest
    assert not unknown


def test_explanations_of_symbols_belong_to_a_formula_that_has_them():
    for kind, texts in WHERE.items():
        for name, text in texts.items():
            shown = symbols(FORMULAS[kind][name])
            for tex in re.findall(r"\$(.*?)\$", text):
                assert symbols(tex) & shown or not symbols(tex), (kind, name, tex)


PARTS = {"mfrac": 2, "msub": 2, "msup": 2, "msubsup": 3, "munder": 2, "mover": 2, "munderover": 3}
"""Number of children of MathML elements, without which browsers draw something else."""


@pytest.mark.full
@pytest.mark.parametrize("kind", FORMULAS)
def test_every_formula_can_be_drawn(kind, extension):
    pytest.importorskip("sphinx")
    mathml = extension("mathml")
    for formula in FORMULAS[kind].values():
        drawn = mathml.to_mathml(formula, as_block=True).replace("&ApplyFunction;", "")
        for element in ElementTree.fromstring(drawn).iter():
            expected = PARTS.get(element.tag.partition("}")[2], len(element))
            assert len(element) == expected, (formula, element.tag)
    for text in WHERE.get(kind, {}).values():
        for formula in re.findall(r"\$(.*?)\$", text):
            assert "<math" in mathml.to_mathml(formula)


def test_large_delimiters_do_not_change_what_a_formula_means(extension):
    pytest.importorskip("sphinx")
    to_mathml = extension("mathml").to_mathml
    shape = lambda tex: [node.tag for node in ElementTree.fromstring(to_mathml(tex)).iter("*")]
    plain = r"\frac{a (b - \langle c \rangle)}{d} e"
    large = r"\frac{a \Big(b - \big\langle c \big\rangle\Big)}{d} e"
    rows = lambda tags: [tag for tag in tags if not tag.endswith("mrow")]
    assert rows(shape(large)) == rows(shape(plain))
    fraction = ElementTree.fromstring(to_mathml(large))[0]
    assert [part.tag.rpartition("}")[2] for part in fraction] == ["mrow", "mi"]


def test_a_delimiter_without_its_partner_is_an_error(extension):
    pytest.importorskip("sphinx")
    mathml = extension("mathml")
    with pytest.raises(mathml.MathError, match="partner"):
        mathml.to_mathml(r"\frac{a \big( b}{c}")


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
