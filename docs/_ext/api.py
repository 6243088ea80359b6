"""API pages: one per package, with its modules, written by autodoc from the docstrings."""

import importlib
import inspect
import pkgutil
import re
from pathlib import Path
from typing import Any

from docutils.nodes import document
from folders import write_folder
from sphinx.addnodes import desc_annotation
from sphinx.application import Sphinx

import mtljax

FOLDER = Path(__file__).parents[1] / "reference" / "api"
MODULES = ["mtljax", *(m.name for m in pkgutil.walk_packages(mtljax.__path__, "mtljax."))]
CODE = re.compile(r"(``[^`]+``|`[^`]+`)")
SPECIAL = re.compile(r"([\\*|]|(?<=\w)_(?!\w))")
NAME = re.compile(r"[A-Za-z_][\w.]*")
LONGEST_VALUE = 60
"""Values of constants and attributes with more characters are not shown."""


def is_package(name: str) -> bool:
    """True for a folder of modules."""
    return hasattr(importlib.import_module(name), "__path__")


def page(package: str) -> str:
    """Page of a package in reStructuredText: its public names, and the contents of its modules."""
    children = [name for name in MODULES if name.rpartition(".")[0] == package]
    packages = [name for name in children if is_package(name)]
    parts = [_heading(package, "="), _contents(package), *_public_names(package)]
    if packages:
        listed = "\n".join(f"   {name}" for name in packages)
        parts.append(f".. toctree::\n   :maxdepth: 1\n\n{listed}\n")
    for name in children:
        if name not in packages:
            parts += [_heading(name, "-"), _contents(name)]
    return "\n".join(parts)


def _heading(text: str, line: str) -> str:
    return f"{text}\n{line * len(text)}\n"


def _contents(module: str) -> str:
    return f".. automodule:: {module}\n   :members:\n   :ignore-module-all:\n"


def _public_names(package: str) -> list[str]:
    """Table of the names that a package exports, with links to their descriptions."""
    module = importlib.import_module(package)
    names = [name for name in getattr(module, "__all__", ()) if not name.startswith("_")]
    if not names:
        return []
    lines = [".. list-table:: Public names", "   :widths: auto", ""]
    for name in sorted(names, key=str.lower):
        thing = getattr(module, name)
        home = getattr(thing, "__module__", None) or package
        path = thing.__name__ if inspect.ismodule(thing) else f"{home}.{name}"
        is_code = inspect.isclass(thing) or inspect.isroutine(thing) or inspect.ismodule(thing)
        summary = (inspect.getdoc(thing) or "").partition("\n")[0] if is_code else ""
        target = path if path.startswith("mtljax") else f"{package}.{name}"
        lines += [f"   * - :py:obj:`{name} <{target}>`", f"     - {_block(summary)}"]
    return ["\n".join(lines) + "\n"]


def to_rst(app: Sphinx, what: str, name: str, thing: Any, options: Any, lines: list[str]) -> None:
    """Converts a docstring to valid reStructuredText: formulas are escaped, names are links."""
    blocks = re.split(r"\n\s*\n", "\n".join(lines))
    lines[:] = "\n\n".join(map(_block, blocks)).splitlines()


def _block(block: str) -> str:
    """One paragraph, list, section or example of a docstring."""
    filled = [line for line in block.split("\n") if line.strip()]
    if not filled or any(line.lstrip().startswith(">>>") for line in filled):
        return block
    if all(line.startswith("    ") for line in filled):
        return "::\n\n" + block
    parts = CODE.split(_separated(block))
    text = "".join(_name(p) if i % 2 else SPECIAL.sub(r"\\\1", p) for i, p in enumerate(parts))
    return re.sub("(?<=\\w)(?=\0)|(?<=\x01)(?=\\w)", r"\\ ", text).translate({0: None, 1: None})


def _separated(block: str) -> str:
    """Puts an empty line between a paragraph and the list that follows it."""
    result: list[str] = []
    in_list = False
    for line in block.split("\n"):
        is_item = line.lstrip().startswith("- ")
        if is_item and result and not in_list:
            result.append("")
        in_list = is_item or (in_list and line.startswith(" "))
        result.append(line)
    return "\n".join(result)


def _name(code: str) -> str:
    """A name may be a link; other code is literal."""
    text = " ".join(code.strip("`").split())
    result = f":py:obj:`{text}`" if NAME.fullmatch(text) else f"``{text}``"
    return f"\0{result}\x01"  # marked, as a letter next to the markup has to be separated from it


def omit_values(app: Sphinx, doctree: document) -> None:
    """Removes values that are long, or objects without a text that could be read as Python.

    The option `no-value` of autodoc has no effect on the members of a module.
    """
    for node in list(doctree.findall(desc_annotation)):
        sign, _, value = node.astext().strip().partition(" ")
        if sign == "=" and (len(value) > LONGEST_VALUE or "<" in value):
            node.parent.remove(node)


def write_pages(app: Sphinx) -> None:
    """Writes a page per package."""
    packages = [name for name in MODULES if is_package(name)]
    write_folder(FOLDER, {f"{name}.rst": page(name) for name in packages})


def setup(app: Sphinx) -> dict[str, Any]:
    """Connects to Sphinx's events, before napoleon."""
    app.connect("builder-inited", write_pages)
    app.connect("autodoc-process-docstring", to_rst, priority=400)
    app.connect("doctree-read", omit_values)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
