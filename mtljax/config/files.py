"""Experiments in files: config.json and the experiments of the package."""

import dataclasses
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mtljax.config.experiment import Data, Experiment
from mtljax.config.own_parts import load_parts, part_digests
from mtljax.config.task_classes import (
    FILE,
    class_of,
    code_digests,
    execute,
    find_class,
    type_hints,
)
from mtljax.tasks import TASKS, Task
from mtljax.utils.bounded_reading import read_json
from mtljax.utils.files import null_for_nan
from mtljax.utils.registry import convert, nearest
from mtljax.utils.terminal import print_line
from mtljax.utils.text import quoted
from mtljax.utils.tree import as_tuples
from mtljax.utils.trust import VARIABLE, trust

KINDS = {cls: kind for kind, cls in TASKS.items()}
"""Class of a task -> its name in JSON."""
CODE = "code"
"""Field of config.json: {task, or file and part: SHA-256 of the user's file that defines it}."""


def to_json(experiment: Experiment) -> dict[str, Any]:
    """Converts an experiment to the content of config.json.

    Raises:
      ValueError: A task's class, or a field of such a class, cannot be read back.
    """
    config = dataclasses.asdict(experiment)
    config["tasks"] = [
        {"task": _kind(task), **fields}
        for task, fields in zip(experiment.tasks, config["tasks"], strict=True)
    ]
    return json.loads(json.dumps(config))


def _kind(task: Task) -> str:
    """Returns the name of a task's class; checks the fields of one that is not in `TASKS`."""
    if (kind := KINDS.get(type(task))) is not None:
        return kind
    text = class_of(type(task)).text
    for name, value in dataclasses.asdict(task).items():
        try:
            stored = json.loads(json.dumps(null_for_nan(value)))
            same = convert(as_tuples(stored), type_hints(type(task))[name]) == getattr(task, name)
        except (TypeError, ValueError):
            same = False
        if not same:
            raise ValueError(
                f"task {task.name!r}: field {name} of {type(task).__name__} cannot be recorded in "
                "config.json: it must be a finite number, text, bool or None, or a tuple of them, "
                "with a type annotation that says so"
            )
    return text


def defaults(cls: type) -> dict[str, Any]:
    """Returns the default values of a dataclass's fields, as JSON."""
    values = {}
    for field in dataclasses.fields(cls):
        if field.default is not dataclasses.MISSING:
            values[field.name] = field.default
        elif field.default_factory is not dataclasses.MISSING:
            values[field.name] = field.default_factory()
    return json.loads(json.dumps(null_for_nan(values)))


def run_config(experiment: Experiment) -> dict[str, Any]:
    """Returns `to_json`, with the hashes of users' files in the field CODE, if there are any."""
    code = {name: sha256 for name, (_, sha256) in _code(experiment).items()}
    return {**to_json(experiment), **({CODE: code} if code else {})}


def trust_code(experiment: Experiment) -> None:
    """Records the users' files with task classes and parts as trusted by this user."""
    for path in {path for path, _ in _code(experiment).values()}:
        if not trust(path):
            print_line(
                f"warning: the home folder is read-only; to load this run, set {VARIABLE}={path}"
            )


def changed_code(experiment: Experiment, config: Mapping[str, Any]) -> list[Path]:
    """Returns the users' files that have changed since config.json was written."""
    recorded = config.get(CODE) or {}
    files = _code(experiment).items()
    return list({path: 0 for name, (path, new) in files if recorded.get(name, new) != new})


def moved_code(experiment: Experiment, config: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the content of config.json with the present paths of users' files.

    A file counts as moved if the recorded one does not exist, or both have the same content.
    """
    recorded, listed = config.get(CODE) or {}, config.get("tasks")
    files = code_digests(_classes(experiment))
    tasks = list(listed) if isinstance(listed, list) else []
    for i, fields in enumerate(tasks):
        name = str(fields.get("name")) if isinstance(fields, dict) else ""
        old = str(fields.get("task")) if name in files else ""
        place, _, qualname = old.removeprefix(FILE).rpartition("#")
        path, sha256 = files.get(name, (None, ""))
        new = f"{FILE}{path}#{qualname}"
        if old.startswith(FILE) and (recorded.get(name) == sha256 or not Path(place).is_file()):
            tasks[i] = {**fields, "task": new}
    return {**config, **({"tasks": tasks} if tasks else {})}


def _code(experiment: Experiment) -> dict[str, tuple[Path, str]]:
    """Returns {task, or file and part: (the user's file, its SHA-256)}."""
    return code_digests(_classes(experiment)) | part_digests(experiment, experiment_folder())


def _classes(experiment: Experiment) -> dict[str, type[Task]]:
    return {task.name: type(task) for task in experiment.tasks}


def from_json(
    config: dict[str, Any], *, tasks: Sequence[type[Task]] = (), exact: bool = False
) -> Experiment:
    """Inverse of `to_json`.

    Args:
      tasks: Task classes of a notebook, which a configuration can only name.
      exact: Refuse users' files that have changed since config.json was written.

    Raises:
      ValueError: A field, task kind or value is invalid, or a file with a task class is missing or
        not trusted.
    """
    config, filled = dict(config), []
    listed, code = config.pop("tasks", ()), config.pop(CODE, None) or {}
    load_parts(code if isinstance(code, dict) else {}, exact=exact)
    if not isinstance(listed, (list, tuple)):
        raise ValueError(f"tasks must be a JSON array, not {quoted(listed)}")
    for fields in listed:
        if not isinstance(fields, dict):
            raise ValueError(f"a task must be a JSON object, not {quoted(fields)}")
        fields = dict(fields)
        kind, name = str(fields.pop("task", None)), fields.get("name")
        sha256 = code.get(name) if isinstance(code, dict) and isinstance(name, str) else None
        cls = find_class(kind, sha256, exact=exact, given=tasks)
        filled.append(_fill(cls, fields, f"task {kind}"))
    data = _fill(Data, config.pop("data", {}), "data")
    return _fill(Experiment, {**config, "tasks": tuple(filled), "data": data}, "experiment")


def _fill(cls: type, fields: dict[str, Any], what: str) -> Any:
    if not isinstance(fields, dict):
        raise ValueError(f"{what} must be a JSON object, not {quoted(fields)}")
    known = {field.name: field for field in dataclasses.fields(cls)}
    hints = type_hints(cls)
    values = dict(getattr(cls, "former", {}))
    for name, value in fields.items():
        if name not in known:
            raise ValueError(f"{what} has no field {quoted(name)}{nearest(name, known)}")
        try:
            values[name] = convert(as_tuples(value), hints[name])
        except TypeError as error:
            raise ValueError(f"{what}: {name} must be {error}, not {quoted(value)}") from None
    for name, field in known.items():
        if name not in fields and field.default is field.default_factory is dataclasses.MISSING:
            raise ValueError(f"{what}: field {name!r} is missing")
    return cls(**values)


def experiment_folder() -> Path:
    """Folder of the experiments: inside the installed package, or next to it in the repository."""
    package = Path(__file__).parents[1]
    installed = package / "experiments"
    return installed if installed.is_dir() else package.parent / "experiments"


def experiment_names() -> list[str]:
    """Names of the experiments of the package."""
    files = experiment_folder().glob("[!_]*.py")
    return sorted(f.stem for f in files if re.search(r"^experiment\b", f.read_text(), re.M))


def find_experiment(name: str) -> Experiment:
    """Returns an experiment.

    Args:
      name: One of `list experiments`, or the path of a .py file or of a run's `config.json`.

    Raises:
      ValueError: It does not exist, or the file does not define `experiment = Experiment(...)`.
    """
    if name.endswith(".json"):
        return read_config(Path(name))
    if name.endswith(".py"):
        path = Path(name)
        if not path.is_file():
            raise ValueError(f"experiment file {name} does not exist")
    else:
        path = experiment_folder() / f"{name}.py"
        if name not in experiment_names():
            raise ValueError(f"unknown experiment {name!r}{nearest(name, experiment_names())}")
    module = execute(path)
    experiment = getattr(module, "experiment", None)
    if not isinstance(experiment, Experiment):
        raise ValueError(f"{path} does not define `experiment = mtljax.Experiment(...)`")
    return experiment


def read_config(path: Path, *, tasks: Sequence[type[Task]] = (), exact: bool = False) -> Experiment:
    """Reads a `config.json`; for the arguments see `from_json`.

    Raises:
      ValueError: It is not an experiment of this version, or a task class cannot be loaded.
    """
    config = read_json(path)
    if not isinstance(config, dict) or "name" not in config:
        raise ValueError(f"{path} is not the configuration of an experiment")
    try:
        return from_json(config, tasks=tasks, exact=exact)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
