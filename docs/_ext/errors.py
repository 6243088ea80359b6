"""Page of error messages with their causes, read from the source code."""

import ast
import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import docstring_parser
from docstrings import cell
from folders import write_folder
from sphinx.application import Sphinx

ROOT = Path(__file__).parents[2]
FOLDER = Path(__file__).parents[1] / "reference" / "errors"
TITLES = {
    "cli": "Flags",
    "config": "Experiments",
    "build": "Experiments",
    "data": "Data",
    "tasks": "Tasks and labels",
    "screening": "Data",
    "models": "Models",
    "balancing": "Balancers",
    "optim": "Optimization",
    "step": "Train step",
    "training": "Training",
    "parallel": "Several devices",
    "runs": "Run folders, encryption and signatures",
    "evaluation": "Evaluation and prediction",
    "exporters": "Export",
    "transfer": "Pretrained weights",
    "merging": "Merging",
    "comparison": "Comparisons",
    "pareto": "Pareto fronts",
    "tuning": "Searches",
    "searching": "Searches",
}
"""Package -> heading; all other packages are under "Other"."""


INTRODUCTION = """\
# Error messages

Invalid input ends the program with one line and exit status 2; `MTLJAX_TRACEBACK=1` shows the
traceback, too. In a library, the messages are those of `ValueError`. The tables list them from the
source code, with inserted values in angle brackets, and the cause that the docstring of the
function gives. Mistakes in data are shown with examples on the pages
[Your data](../../my_data.md#typical-mistakes) and following.
"""
HEADER = "| message | cause, or what the function does | raised by |", "|---|---|---|"


class Message(NamedTuple):
    """Error message of a function."""

    text: str
    """The message; values that are inserted are in angle brackets."""
    place: str
    """Function that raises it."""
    cause: str
    """When, from the docstring of the function."""


def messages(path: Path) -> Iterator[Message]:
    """Messages of the ValueErrors that a module raises."""
    module = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
    tree = ast.parse(path.read_text())
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]

    def cause_of(node: ast.FunctionDef | ast.ClassDef, seen: tuple[str, ...] = ()) -> str:
        """Cause in the docstring, or else in that of a function that uses this one."""
        if (own := _cause(node)) or node.name in seen:
            return own
        callers = (f for f in functions if f is not node and node.name in _names(f))
        return next(filter(None, (cause_of(f, (*seen, node.name)) for f in callers)), "")

    def visit(node: ast.AST, names: tuple[str, ...], cause: str) -> Iterator[Message]:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.FunctionDef | ast.ClassDef):
                cause_here = cause_of(child) or cause
                yield from visit(child, (*names, child.name), cause_here)
            elif isinstance(child, ast.Raise) and (text := _text_of(child)):
                yield Message(text, ".".join((module, *names)), cause)
            else:
                yield from visit(child, names, cause)

    yield from visit(tree, (), "")


def _names(node: ast.FunctionDef) -> set[str]:
    """Names of functions and methods in the code of a function."""
    nodes = list(ast.walk(node))
    return {x.id for x in nodes if isinstance(x, ast.Name)} | {
        x.attr for x in nodes if isinstance(x, ast.Attribute)
    }


def _text_of(node: ast.Raise) -> str:
    """Text of a raised ValueError; empty for other errors and for messages without text."""
    call = node.exc
    if not isinstance(call, ast.Call) or getattr(call.func, "id", "") != "ValueError":
        return ""
    text = _template(call.args[0]) if call.args else ""
    plain = re.sub(r"<[^<>]*>", "", text)
    return text if re.search(r"[A-Za-z]{3}", plain) else ""


def _template(node: ast.expr) -> str:
    if isinstance(node, ast.Constant):
        return str(node.value)
    if isinstance(node, ast.JoinedStr):
        return "".join(map(_template, node.values))
    if isinstance(node, ast.FormattedValue):
        return f"<{_name_of(node.value)}>"
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        return _template(node.left) + _template(node.right)
    return f"<{_name_of(node)}>"


def _name_of(node: ast.expr) -> str:
    """A word for an inserted value."""
    words = [
        n.attr if isinstance(n, ast.Attribute) else n.id
        for n in ast.walk(node)
        if isinstance(n, ast.Attribute | ast.Name)
    ]
    words = [word for word in words if not FORMATTERS.fullmatch(word)]
    return words[0].strip("_").replace("_", " ") if words else "..."


FORMATTERS = re.compile(
    "quoted|listed|shortened|nearest|count|first_line|join|map|repr|str|sorted|did_you_mean|len|min"
    "|max|number|tuple|getattr|removesuffix"
)
"""Functions that format a value in a message."""


def _cause(node: ast.FunctionDef | ast.ClassDef) -> str:
    """Description of the error in the docstring, or else the first line of it."""
    text = ast.get_docstring(node)
    if not text:
        return ""
    raised = [
        item.description or ""
        for item in docstring_parser.parse(text).raises
        if "ValueError" in (item.type_name or "")
    ]
    return " ".join(" ".join(raised).split()) or inspect.cleandoc(text).partition("\n")[0]


def page() -> str:
    """The page, with a table for each part of the program."""
    result: dict[str, list[Message]] = {title: [] for title in [*TITLES.values(), "Other"]}
    for path in sorted((ROOT / "mtljax").rglob("*.py")):
        package = path.relative_to(ROOT / "mtljax").parts[0].removesuffix(".py")
        result[TITLES.get(package, "Other")] += messages(path)
    lines = [INTRODUCTION]
    for title, entries in result.items():
        if entries:
            lines += [f"## {title}", "", *HEADER]
            for text, place, cause in sorted(set(entries)):
                code = text.replace("`", "'").replace("|", "/").replace("\n", " ").strip()
                where = f"{{py:obj}}`~{place}`"
                lines.append(f"| `{code}` | {cell(cause)} | {where} |")
            lines.append("")
    return "\n".join(lines)


def write_pages(app: Sphinx) -> None:
    """Writes the page."""
    write_folder(FOLDER, {"index.md": page()})


def setup(app: Sphinx) -> dict[str, Any]:
    """Connects to Sphinx's events."""
    app.connect("builder-inited", write_pages)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
