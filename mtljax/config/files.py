"""Experiments in files: config.json and the experiments of the package."""

import dataclasses
import json
import re
import traceback
import types
import typing
from pathlib import Path
from typing import Any

from mtljax.config.experiment import Data, Experiment
from mtljax.tasks import TASKS
from mtljax.utils.bounded_reading import read_json
from mtljax.utils.registry import convert, nearest


def to_json(experiment: Experiment) -> dict[str, Any]:
    """Converts an experiment to the content of config.json."""
    kinds = {cls: kind for kind, cls in TASKS.items()}
    config = dataclasses.asdict(experiment)
    config["tasks"] = [
        {"task": kinds.get(type(task), type(task).__qualname__), **fields}
        for task, fields in zip(experiment.tasks, config["tasks"], strict=True)
    ]
    return json.loads(json.dumps(config))


def from_json(config: dict[str, Any]) -> Experiment:
    """Inverse of `to_json`; raises ValueError for a field, task kind or value that is invalid."""
    config, tasks = dict(config), []
    listed = config.pop("tasks", ())
    if not isinstance(listed, (list, tuple)):
        raise ValueError(f"tasks must be a JSON array, not {listed!r}")
    for fields in listed:
        if not isinstance(fields, dict):
            raise ValueError(f"a task must be a JSON object, not {fields!r}")
        fields = dict(fields)
        kind = fields.pop("task", None)
        if kind not in TASKS:
            raise ValueError(f"unknown task kind {kind!r}{nearest(str(kind), TASKS)}")
        tasks.append(_fill(TASKS[kind], fields, f"task {kind}"))
    data = _fill(Data, config.pop("data", {}), "data")
    return _fill(Experiment, {**config, "tasks": tuple(tasks), "data": data}, "experiment")


def _fill(cls: type, fields: dict[str, Any], what: str) -> Any:
    if not isinstance(fields, dict):
        raise ValueError(f"{what} must be a JSON object, not {fields!r}")
    known = {field.name: field for field in dataclasses.fields(cls)}
    hints = typing.get_type_hints(cls)
    values = {}
    for name, value in fields.items():
        if name not in known:
            raise ValueError(f"{what} has no field {name!r}{nearest(name, known)}")
        try:
            values[name] = convert(_tuples(value), hints[name])
        except TypeError as error:
            raise ValueError(f"{what}: {name} must be {error}, not {value!r}") from None
    for name, field in known.items():
        if name not in fields and field.default is field.default_factory is dataclasses.MISSING:
            raise ValueError(f"{what}: field {name!r} is missing")
    return cls(**values)


def _tuples(value: Any) -> Any:
    return tuple(map(_tuples, value)) if isinstance(value, list) else value


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
    """Returns an experiment by name, or of the path of a .py file or of a run's `config.json`.

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
    module = types.ModuleType(f"mtljax_experiment_{path.stem}")
    module.__file__ = str(path)
    try:
        # Not by importlib, which would write a __pycache__ next to the file.
        exec(compile(path.read_text(), str(path), "exec"), module.__dict__)
    except SyntaxError as error:
        raise ValueError(f"{path}: line {error.lineno}: {error.msg}") from None
    except Exception as error:
        frames = traceback.extract_tb(error.__traceback__)
        lines = [f.lineno for f in frames if Path(f.filename).resolve() == path.resolve()]
        where = f"line {lines[-1]}: " if lines else ""
        raise ValueError(f"{path}: {where}{type(error).__name__}: {error}") from error
    experiment = getattr(module, "experiment", None)
    if not isinstance(experiment, Experiment):
        raise ValueError(f"{path} does not define `experiment = mtljax.Experiment(...)`")
    return experiment


def read_config(path: Path) -> Experiment:
    """Reads a `config.json`; raises ValueError if it is not an experiment of this version."""
    config = read_json(path)
    if not isinstance(config, dict) or "name" not in config:
        raise ValueError(f"{path} is not the configuration of an experiment")
    try:
        return from_json(config)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
