"""Docstrings as Markdown for MyST."""

import re
from collections.abc import Mapping

CODE = re.compile(r"(``.+?``|`[^`]+`)", re.S)
SPECIAL = re.compile(r"([\\*_<>\[\]$~|#{}])")
GREEK = "alpha|beta|gamma|epsilon|kappa|lambda|mu|rho|sigma|tau|theta|xi"
VARIABLE = re.compile(
    rf"(?<![\w\\])([A-Za-z]|{GREEK}|sum|max|min|prod|log)"
    r"_([A-Za-z0-9]{1,2}|\(\w[+-]\w\)|\{[\w+-]+\})(?![A-Za-z0-9_])"
    rf"|\b({GREEK})\b(?![=`])"
)
"""Variable or operator with a subscript, or a Greek letter."""
SIGNS = {"<=": "≤", ">=": "≥", "<-": "←", "^2": "²", "^3": "³"}
URLS = {
    r"arXiv:(\d{4}\.\d{4,5})": r"https://arxiv.org/abs/\1",
    r"doi:([^\s;,)]+)": r"https://doi.org/\1",
    r"openreview:(\w+)": r"https://openreview.net/forum?id=\1",
}
"""Identifier of a paper -> its address."""


def markdown(text: str, targets: Mapping[str, str] | None = None) -> str:
    """Converts the text of a docstring.

    Paragraphs, lists and indented blocks remain; names in backquotes are code.

    Args:
      text: Paragraphs, without indentation.
      targets: Name -> label of the place that describes it; such names become links.
    """
    blocks = re.split(r"\n\s*\n", text.strip("\n")) if text.strip() else []
    return "\n\n".join(_block(block, targets or {}) for block in blocks)


def _block(block: str, targets: Mapping[str, str]) -> str:
    if all(line.startswith("    ") for line in block.splitlines()):
        return f"```text\n{_dedented(block)}\n```"
    text = inline(block, targets)
    return re.sub(r"^(\s*)- ", r"\1- ", re.sub(r"\n(?=- )", "\n", text))


def _dedented(block: str) -> str:
    return "\n".join(line[4:] for line in block.splitlines())


def inline(text: str, targets: Mapping[str, str] | None = None) -> str:
    """Escapes what Markdown would interpret outside of code, and links known names."""
    parts = CODE.split(text)
    for i, part in enumerate(parts):
        if i % 2 == 0:
            parts[i] = _text(part)
        else:
            name = part.strip("`")
            label = (targets or {}).get(name)
            if label:
                parts[i] = f"[`{name}`](#{label})"
            elif re.fullmatch(r"mtljax(\.\w+)+", name):
                parts[i] = f"{{py:obj}}`{name}`"
            else:
                parts[i] = f"`{name}`"
    return "".join(parts)


def _text(text: str) -> str:
    """Escapes text and writes what is surely a formula as one."""
    for sign, symbol in SIGNS.items():
        text = text.replace(sign, symbol)
    result, end = [], 0
    for match in VARIABLE.finditer(text):
        name, subscript, letter = match.groups()
        name, subscript = name or letter, (subscript or "").strip("(){}")
        tex = name if len(name) == 1 else f"\\{name}"
        result += [_escaped(text[end : match.start()])]
        result += [f"${tex}_{{{subscript}}}$" if subscript else f"${tex}$"]
        end = match.end()
    return "".join([*result, _escaped(text[end:])])


def _escaped(text: str) -> str:
    return SPECIAL.sub(r"\\\1", text)


def cell(text: str, targets: Mapping[str, str] | None = None) -> str:
    """Text for a cell of a table: one line, no separators of cells in code."""
    return " ".join(inline(text, targets).split()).replace("|", "\\|").replace("\\\\|", "\\|")


def papers(text: str) -> str:
    """Converts identifiers of papers and links of reStructuredText to links."""
    result = re.sub(r"`([^`<]+?)\s*<([^>`]+)>`_*", r"[\1](\2)", text)
    if result != text:
        return re.sub(r"\]\((?!https?:)", "](https://", result)
    result = inline(text)
    for pattern, address in URLS.items():
        result = re.sub(pattern, rf"[\g<0>]({address})", result)
    return re.sub(r"(?<![(\w])(https?://[^\s,;]+)", r"<\1>", result)


def year(text: str) -> int | None:
    """Year of the first paper; None if there is none.

    Example:
      >>> year("Yu et al., 2020, arXiv:2001.06782")
      2020
    """
    result = re.search(r"(?<![\w:.])(19|20)\d\d\b(?!\.\d)", text)
    return int(result[0]) if result else None
