"""Public names of the package, and those of them that have documentation.

Public are all modules, the functions, classes and constants that a module defines, and the methods
and fields of such a class, if their names do not start with an underscore. Type variables, which
only annotations need, are not counted.

Documentation is a docstring, for a constant or a field the string below it, or, for a field, its
entry in the docstring of the class. A member of a class may have that of a base class.
"""

import ast
import functools
import importlib
import inspect
import pkgutil
from collections.abc import Iterator, Sequence

import docstring_parser

import mtljax

MODULES = ["mtljax", *(m.name for m in pkgutil.walk_packages(mtljax.__path__, "mtljax."))]
TYPE_VARIABLES = ("TypeVar", "ParamSpec")


@functools.cache
def own_names() -> dict[str, bool]:
    """Returns every public name, with its module and class, and whether it has documentation."""
    own: dict[str, bool] = {}
    for module in MODULES:
        for name, documented in _of_module(module):
            own[name] = documented or own.get(name, False)
    return own


def undocumented() -> list[str]:
    """Returns the public names that have no documentation, nor one in a base class."""
    names = own_names()
    return [name for name, own in names.items() if not own and not _is_inherited(name, names)]


def arguments_of(docstring: str) -> set[str]:
    """Returns the names of arguments or fields that a docstring describes."""
    parsed = docstring_parser.parse(docstring, docstring_parser.DocstringStyle.GOOGLE)
    return {name.strip() for p in parsed.params for name in p.arg_name.split(",")}


def _of_module(module: str) -> Iterator[tuple[str, bool]]:
    tree = ast.parse(inspect.getsource(importlib.import_module(module)))
    yield module, ast.get_docstring(tree) is not None
    yield from _of_body(tree.body, module, "")


def _of_body(body: Sequence[ast.stmt], path: str, docstring: str) -> Iterator[tuple[str, bool]]:
    described = arguments_of(docstring)
    for node, following in zip(body, [*body[1:], None], strict=True):
        if isinstance(node, ast.If):
            yield from _of_body([*node.body, *node.orelse], path, docstring)
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
            text = ast.get_docstring(node)
            yield f"{path}.{node.name}", text is not None
            if isinstance(node, ast.ClassDef):
                yield from _of_body(node.body, f"{path}.{node.name}", text or "")
        for name in _assigned(node):
            yield f"{path}.{name}", _is_string(following) or name in described


def _assigned(node: ast.stmt) -> list[str]:
    """Public names that a statement assigns or declares."""
    if not isinstance(node, ast.Assign | ast.AnnAssign):
        return []
    if isinstance(node.value, ast.Call) and getattr(node.value.func, "id", "") in TYPE_VARIABLES:
        return []
    targets = node.targets if isinstance(node, ast.Assign) else [node.target]
    names = [x.id for t in targets for x in getattr(t, "elts", [t]) if isinstance(x, ast.Name)]
    return [name for name in names if not name.startswith("_")]


def _is_string(node: ast.AST | None) -> bool:
    return isinstance(node, ast.Expr) and isinstance(getattr(node.value, "value", None), str)


def _is_inherited(name: str, documented: dict[str, bool]) -> bool:
    """True if a member of a class has documentation in a base class."""
    owner, _, member = name.rpartition(".")
    module, _, cls = owner.rpartition(".")
    if module not in MODULES or owner in MODULES:
        return False
    bases = getattr(importlib.import_module(module), cls).__mro__[1:]
    return any(documented.get(f"{b.__module__}.{b.__qualname__}.{member}") for b in bases)
