"""Equations as MathML, which browsers draw without JavaScript and without a network."""

import re
from typing import Any
from xml.etree import ElementTree

from docutils.nodes import SkipNode, math, math_block
from docutils.utils.math import MathError
from docutils.utils.math.latex2mathml import tex2mathml
from sphinx.application import Sphinx
from sphinx.util import logging
from sphinx.writers.html5 import HTML5Translator

MACROS = {
    r"\argmin": r"\operatorname*{arg min}",
    r"\argmax": r"\operatorname*{arg max}",
    r"\dots": r"\ldots",
    r"\bm": r"\boldsymbol",
}
"""Commands that docutils lacks, with a replacement."""
ARITY = {"mfrac": 2, "msub": 2, "msup": 2, "munder": 2, "mover": 2, "mroot": 2}
ARITY |= {"msubsup": 3, "munderover": 3}
"""Elements of MathML with this number of children."""
GROUP = r"\{((?:[^{}]|\{(?:[^{}]|\{[^{}]*\})*\})*)\}"
BELOW = re.compile(rf"\\operatorname\*{GROUP}_{GROUP}")
"""Operator with what is written below it."""
SIZED = re.compile(r"(\\[bB]ig)(?![A-Za-z])\s*(\\r|[)\]])?")
"""Size of a delimiter, and the start of the delimiter if it is a closing one."""
BEFORE_FUNCTION = re.compile(r"(?<=[\w})|])\s*(?=\\(?:log|exp|cos|tanh|operatorname)(?![A-Za-z]))")
"""Place before the name of a function, where TeX leaves a space."""
FENCE = re.compile(r'<mo( class="mathopen")?>([|‖⟨⟩])</mo>')
"""Bars and angle brackets, which browsers stretch to the height of the line by default."""

LOGGER = logging.getLogger(__name__)


def to_mathml(tex: str, as_block: bool = False) -> str:
    """Converts TeX to MathML; raises MathError for a command that docutils does not know.

    Delimiters have the size of the letters, unless TeX says otherwise.
    """
    text = re.sub(r"\\[A-Za-z]+", lambda result: MACROS.get(result[0], result[0]), tex)
    text = SIZED.sub(lambda found: found[1] + (f"r{found[2]}" if found[2] else "l"), text)
    text = BEFORE_FUNCTION.sub(r"\\,", text)
    text = BELOW.sub(r"\\underset{\2}{\\operatorname{\1}}\\,", text)
    text = tex2mathml(text.replace(r"\operatorname*", r"\operatorname"), as_block=as_block)
    _check_parts(text.replace("&ApplyFunction;", ""))  # an entity of HTML, not of XML
    return FENCE.sub(r'<mo\1 stretchy="false">\2</mo>', text)


def _check_parts(text: str) -> None:
    """Raises MathError if a fraction or a letter with an index lacks a part."""
    for node in ElementTree.fromstring(text).iter():
        name = node.tag.rpartition("}")[2]
        if len(node) != ARITY.get(name, len(node)):
            raise MathError(f"{name} with {len(node)} parts: a delimiter without its partner?")


def visit_math(translator: HTML5Translator, node: math) -> None:
    """Writes an equation within a line."""
    translator.body.append(_converted(node))
    raise SkipNode


def visit_block(translator: HTML5Translator, node: math_block) -> None:
    """Writes an equation on a separate line, which scrolls if it is wider than the page."""
    label = f' id="{node["ids"][0]}"' if node.get("ids") else ""
    body = _converted(node, as_block=True)
    translator.body.append(f'<div class="equation" tabindex="0"{label}>{body}</div>\n')
    raise SkipNode


def _converted(node: math | math_block, as_block: bool = False) -> str:
    try:
        return to_mathml(node.astext(), as_block)
    except MathError as error:
        LOGGER.warning("equation %r: %s", node.astext(), error, location=node, type="math")
        return ""


def setup(app: Sphinx) -> dict[str, Any]:
    """Registers the renderer `mathml` for `html_math_renderer`."""
    app.add_html_math_renderer("mathml", (visit_math, None), (visit_block, None))
    return {"parallel_read_safe": True, "parallel_write_safe": True}
