"""Task classes of users: their names in config.json, and loading by name.

A class of an experiment file or of another single file is named `file:/path/of/file.py#Class`, one
of a package `package.module:Class`, and one of a notebook `__main__:Class`.
"""

import contextlib
import hashlib
import importlib
import importlib.util
import os
import sys
import sysconfig
import traceback
import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from mtljax.tasks import TASKS, Task
from mtljax.utils.bounded_reading import read_text
from mtljax.utils.registry import nearest
from mtljax.utils.terminal import print_line
from mtljax.utils.text import first_line, quoted, shortened
from mtljax.utils.trust import VARIABLE, digest, find_trusted

FILE = "file:"
"""Prefix of the path of a file with a task's class."""
NOTEBOOK = "__main__"
"""Module of classes that were defined in a notebook or a script."""
CHANGED = "has changed since this run was trained with it"
"""Message on a file with another hash than at the time of training."""
PREFIX = "mtljax_experiment_"
"""Start of the module names of executed files."""
_executed: dict[str, types.ModuleType] = {}
"""Executed files by module name. They are not in `sys.modules`, so that the processes that read
data get their classes by value."""


class UserClass(NamedTuple):
    """Name of a task class that is not in `TASKS`."""

    text: str
    """Name in config.json."""
    path: Path | None
    """File that defines it; None for a notebook or a module without a file."""


def execute(path: Path) -> types.ModuleType:
    """Executes a Python file as a module.

    Raises:
      ValueError: The file cannot be read or raises an exception; the message has the line.
    """
    shown, path = path, path.resolve()
    name = f"{PREFIX}{path.stem}_{hashlib.sha256(str(path).encode()).hexdigest()[:8]}"
    module = types.ModuleType(name)
    module.__file__ = str(path)
    try:
        # Not by importlib, which would write a __pycache__ next to the file.
        text = read_text(path)
        with _importable(module):
            exec(compile(text, str(path), "exec"), module.__dict__)
    except SyntaxError as error:
        raise ValueError(f"{shown}: line {error.lineno}: {error.msg}") from None
    except (Exception, SystemExit) as error:
        frames = traceback.extract_tb(error.__traceback__)
        lines = [f.lineno for f in frames if Path(f.filename).resolve() == path]
        where = f"line {lines[-1]}: " if lines else ""
        raise ValueError(f"{shown}: {where}{type(error).__name__}: {first_line(error)}") from error
    module.__dict__["__sha256__"] = hashlib.sha256(text.encode()).hexdigest()
    _executed[name] = module
    return module


def require_not_executing() -> None:
    """Raises ValueError if a file is being executed for its definitions, which must not train."""
    for name in list(sys.modules):
        if name.startswith(PREFIX):
            raise ValueError(
                "training must not start when the file is loaded for its definitions; put it under "
                '`if __name__ == "__main__":`'
            )


@contextlib.contextmanager
def _importable(*modules: types.ModuleType) -> Iterator[None]:
    """Context in which modules are in `sys.modules`, where dataclasses resolve annotations."""
    names = {module.__name__: module for module in modules}
    sys.modules.update(names)
    try:
        yield
    finally:
        for name in names:
            sys.modules.pop(name, None)


def executed_modules() -> contextlib.AbstractContextManager[None]:
    """Context in which libraries find the modules of executed files by name."""
    return _importable(*_executed.values())


def type_hints(cls: type) -> dict[str, Any]:
    """Returns `typing.get_type_hints` of a class, also of one in an executed file."""
    with executed_modules():
        return typing.get_type_hints(cls)


def class_of(cls: type[Task]) -> UserClass:
    """Returns the name of a task class that is not in `TASKS`.

    Raises:
      ValueError: The class is not at the top level of a module, so it cannot be imported by name.
    """
    name, qualname = cls.__module__, cls.__qualname__
    module = _executed.get(name) or sys.modules.get(name)
    member = None if "<locals>" in qualname or module is None else _member(module, qualname)
    if module is None or member is None:
        raise ValueError(
            f"task class {qualname} cannot be recorded in config.json: define it at the top level "
            "of the experiment file or of a module, not in a function, so that a run can be loaded"
        )
    if member is not cls:
        raise ValueError(
            f"task class {qualname} has been defined again since the task was created, so it "
            "cannot be recorded in config.json; create the task again"
        )
    file = _file(module)
    path = None if file is None else file.resolve()
    if path is not None and "." not in name and not _is_installed(path):
        return UserClass(f"{FILE}{path}#{qualname}", path)
    return UserClass(f"{name}:{qualname}", path)


def find_class(
    text: str, sha256: str | None = None, *, exact: bool = False, given: Sequence[type[Task]] = ()
) -> type[Task]:
    """Returns the task class of a name in config.json; executes trusted files only.

    Args:
      text: Kind of `TASKS`, or name of a class; see this module.
      sha256: Recorded SHA-256 of the file that defines the class.
      exact: Refuse a file with another content, which is otherwise printed.
      given: Classes that take precedence over the file of a class with the same name.

    Raises:
      ValueError: The name is unknown, the file is missing or not trusted, or defines no such task.
    """
    if text in TASKS:
        return TASKS[text]
    place, separator, qualname = text.rpartition("#" if text.startswith(FILE) else ":")
    if not separator:
        raise ValueError(f"unknown task kind {quoted(text)}{nearest(text, TASKS)}")
    for cls in given:
        if cls.__qualname__ == qualname:
            return cls
    if text.startswith(FILE):
        module = load_file(place, sha256, f"task class {qualname}", exact=exact)
    else:
        module = sys.modules.get(place) or _import(place, sha256, qualname, exact)
    member = _member(module, qualname)
    if isinstance(member, type) and issubclass(member, Task):
        check_content(module, sha256, exact=exact)
        return member
    if place == NOTEBOOK:
        raise ValueError(
            f"task class {qualname} was defined in a notebook: load the run by "
            f"mtljax.load_run(PATH, tasks=[{qualname}])"
        )
    raise ValueError(f"{_file(module) or place} defines no task class {qualname!r}")


def load_file(text: str, sha256: str | None, what: str, *, exact: bool = False) -> types.ModuleType:
    """Returns the module of a file in config.json; executes it if it is trusted.

    Args:
      text: FILE and the path.
      sha256: Recorded SHA-256.
      what: What the file defines, for messages.
      exact: Refuse a file with another content.

    Raises:
      ValueError: The file is missing, not trusted or raises an exception.
    """
    path = Path(text.removeprefix(FILE))
    if (module := _loaded(path)) is not None:
        return module
    trusted = _trusted(path, sha256, what)
    if exact:  # before it is executed
        _require_content(trusted, digest(trusted), sha256)
    return execute(trusted)


def _file(module: types.ModuleType) -> Path | None:
    """Returns the file of a module; None in a notebook, whose `__file__` may be "<stdin>"."""
    file = getattr(module, "__file__", None)
    return None if file is None or not os.path.isfile(file) else Path(file)


def _member(module: types.ModuleType, qualname: str) -> Any:
    value: Any = module
    for part in qualname.split("."):
        value = getattr(value, part, None)
    return value


def _loaded(path: Path) -> types.ModuleType | None:
    """Returns the module of a file that this process has executed already."""
    for module in [*_executed.values(), *sys.modules.values()]:
        file = getattr(module, "__file__", None)  # of hundreds of modules: no access to the disk
        if file and Path(file).name == path.name and Path(file).resolve() == path:
            return module
    return None


def _trusted(path: Path, sha256: str | None, what: str) -> Path:
    """Returns the file to execute instead of `path`, usually the same."""
    if (trusted := find_trusted(path, sha256)) is not None:
        return trusted
    if not os.path.isfile(path):  # False for a name that no file can have
        shown = shortened(str(path), 200)
        raise ValueError(
            f"{shortened(what)} was defined in {shown}, which does not exist; put "
            f"it back, or set {VARIABLE} to its new path (a changed file must have the same name)"
        )
    raise ValueError(
        f"{shortened(what)} is defined in {path}, which this user never trained with on this "
        f"machine and which is therefore not executed; if you trust it, set {VARIABLE}={path}"
    )


def _import(name: str, sha256: str | None, qualname: str, exact: bool) -> types.ModuleType:
    """Imports a module of an installed package, or of trusted files."""
    package, *rest = name.split(".")
    spec = importlib.util.find_spec(package)  # executes no code
    folders = [] if spec is None else spec.submodule_search_locations or []
    stems = [Path(folder).resolve().joinpath(*rest) for folder in folders]
    files = [file for stem in stems for file in (stem.with_suffix(".py"), stem / "__init__.py")]
    if not rest and spec is not None and spec.origin is not None:
        files = [Path(spec.origin).resolve()]
    path = next((file for file in files if file.is_file()), None)
    if path is None:
        raise ValueError(
            f"task class {shortened(qualname)} was defined in module {shortened(name)}, which is "
            "not found here; install it, or run in the folder that contains it"
        )
    if not _is_installed(path):
        _trusted(path, sha256, f"task class {qualname}")
    if exact:  # before it is executed
        _require_content(path, digest(path), sha256)
    try:
        return importlib.import_module(name)
    except Exception as error:
        raise ValueError(f"module {name}: {type(error).__name__}: {first_line(error)}") from error


def _is_installed(path: Path) -> bool:
    """True for files of Python and of installed packages."""
    folders = (sysconfig.get_path(kind) for kind in ("stdlib", "purelib", "platlib"))
    return any(path.is_relative_to(Path(folder).resolve()) for folder in folders)


def check_content(module: types.ModuleType, sha256: str | None, *, exact: bool) -> None:
    """Prints a warning, or, if `exact`, raises ValueError, if the file of a module has changed."""
    file = _file(module)
    if file is None:
        return
    current = getattr(module, "__sha256__", None) or digest(file)
    if exact:
        _require_content(file, current, sha256)
    elif sha256 not in (None, current):
        print_line(f"warning: {file} {CHANGED}")


def _require_content(file: Path, current: str, sha256: str | None) -> None:
    if sha256 not in (None, current):
        raise ValueError(f"{file} {CHANGED}; put back the file that was signed")


def code_digests(classes: Mapping[str, type[Task]]) -> dict[str, tuple[Path, str]]:
    """Returns {task: (file, its SHA-256)} for tasks with a class of a user's file."""
    digests = {}
    for task, cls in classes.items():
        if cls not in TASKS.values() and (path := class_of(cls).path) is not None:
            module = _executed.get(cls.__module__)
            digests[task] = path, getattr(module, "__sha256__", None) or digest(path)
    return digests


def executed_files() -> dict[str, tuple[Path, str]]:
    """Returns {name of the module: (path, SHA-256)} of the files that this process executed."""
    return {
        name: (Path(str(module.__file__)), module.__sha256__) for name, module in _executed.items()
    }
