"""Page of the files of a run folder, with a JSON schema of each, from their dataclasses."""

import collections.abc
import dataclasses
import json
import types
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import docstring_parser
from docstrings import cell, inline
from folders import write_folder
from sphinx.application import Sphinx

import mtljax.runs.folder
from mtljax.config import Experiment
from mtljax.evaluation.calibration import Calibration
from mtljax.runs.input_spec import ImageSpec
from mtljax.runs.records import TrainRecord, ValidationRecord
from mtljax.runs.result import RunResult
from mtljax.tasks import TASKS
from mtljax.tasks.metric import SplitMetrics

FOLDER = Path(__file__).parents[1] / "reference" / "run_folder"
DRAFT = "https://json-schema.org/draft/2020-12/schema"
SIMPLE = {str: "string", int: "integer", float: "number", bool: "boolean", type(None): "null"}
RENAMED = {"constant_predictor": "trivial"}
"""Field of a result -> name in JSON."""


def schema_of(hint: Any) -> dict[str, Any]:
    """JSON schema of a type; a number may be null, which is how NaN is written."""
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if hint is float:
        return {"type": ["number", "null"]}
    if isinstance(hint, type) and hint in SIMPLE:
        return {"type": SIMPLE[hint]}
    if dataclasses.is_dataclass(hint):
        return object_schema(typing.cast(type, hint))
    if origin is Literal:
        return {"enum": list(inner)}
    if origin in (typing.Union, types.UnionType):
        return {"anyOf": [schema_of(option) for option in inner]}
    if isinstance(origin, type) and issubclass(origin, collections.abc.Mapping):
        return {"type": "object", "additionalProperties": schema_of(inner[1])}
    if isinstance(origin, type) and issubclass(origin, collections.abc.Sequence):
        return {"type": "array", "items": schema_of(inner[0])}
    return {}


def object_schema(kind: type, required: typing.Sequence[str] | None = None) -> dict[str, Any]:
    """JSON schema of a dataclass or named tuple."""
    hints, help_of = typing.get_type_hints(kind), descriptions(kind)
    properties = {}
    for name, hint in hints.items():
        if name.startswith("_") or typing.get_origin(hint) is typing.ClassVar:
            continue
        result = schema_of(hint)
        if help_of.get(name):
            result = {**result, "description": help_of[name]}
        properties[RENAMED.get(name, name)] = result
    if required is None:
        required = [name for name in properties if not _has_default(kind, name)]
    return {"type": "object", "properties": properties, "required": list(required)}


def _has_default(kind: type, name: str) -> bool:
    if not dataclasses.is_dataclass(kind):
        return name in getattr(kind, "_field_defaults", {})
    missing = dataclasses.MISSING
    fields = {RENAMED.get(field.name, field.name): field for field in dataclasses.fields(kind)}
    return fields[name].default is not missing or fields[name].default_factory is not missing


def descriptions(kind: type) -> dict[str, str]:
    """Field -> its docstring, in one line."""
    style = docstring_parser.DocstringStyle.GOOGLE
    parameters = docstring_parser.parse_from_object(kind, style).params
    return {p.arg_name: " ".join((p.description or "").split()) for p in parameters}


def config_schema() -> dict[str, Any]:
    """Schema of config.json: fields of an experiment, with components as text."""
    result = object_schema(Experiment, required=("name", "tasks"))
    for name in ("trunk", "fusion", "balancer", "optimizer"):
        result["properties"][name] = {**result["properties"][name], "type": "string"}
    task = {"type": "string", "description": f"One of {', '.join(TASKS)}, or FILE.py:CLASS."}
    result["properties"]["tasks"] = {
        "type": "array",
        "items": {
            "type": "object",
            "properties": {"task": task, "name": {"type": "string"}},
            "required": ["task", "name"],
        },
    }
    return result


Fields = dict[str, tuple[Any, str]]
"""Name -> type, description."""
CALIBRATION: Fields = {
    "step": (int, "Step of the checkpoint, the best on validation."),
    "tasks": (dict[str, Calibration], "Temperature of each task, and how well it fits."),
}
EVALUATION: Fields = {
    "step": (int, "Step of the checkpoint, the best on validation."),
    "split": (str, "Evaluated split."),
    "metrics": (SplitMetrics, "Task -> metrics."),
}
OPTIONS_OF_EVALUATION: Fields = {
    "source": (str, "Data source other than that of the run."),
    "preference": (dict[str, float], "Task -> preference of a conditioned network, with sum 1."),
    "attack": (dict[str, Any], "Attack and its size."),
    "own": (SplitMetrics, "Metrics of each task under attacks on its own loss."),
    "all": (SplitMetrics, "Metrics under attacks on the sum of all losses."),
}
POINTS: Fields = {
    "rays": (list[list[float]], "Preferences over the tasks, with mean 1."),
    "test": (list[SplitMetrics], "Test metrics at each of them."),
}
PREDICTION: Fields = {
    "prediction": (Any, "Value in the form of a label, or the path of a .npy file with a map."),
    "text": (str, "The prediction as text."),
}
OPTIONS_OF_PREDICTION: Fields = {
    "probabilities": (dict[str, float], "Class -> probability."),
    "top": (list[dict[str, Any]], "Most probable classes, with their probabilities."),
    "temperature": (float, "Temperature of calibrated probabilities."),
    "png": (str, "Path of a picture of the map."),
    "overlay": (str, "Path of a picture of the prediction on the image."),
}
IMAGE: Fields = {"image": (str, "Path of the image file.")}
OPTIONS_OF_IMAGE: Fields = {
    "error": (str, "Reason why the file cannot be read; then there are no predictions."),
    "size": (list[int], "Height and width of the file."),
    "model_size": (list[int], "Height and width of the image that the network takes."),
}


def record(required: Fields, optional: Fields | None = None) -> dict[str, Any]:
    """JSON schema of an object with these fields."""
    properties = {
        name: {**schema_of(hint), "description": text}
        for name, (hint, text) in {**required, **(optional or {})}.items()
    }
    return {"type": "object", "properties": properties, "required": list(required)}


def schemas() -> dict[str, dict[str, Any]]:
    """File -> schema of its content, or of a line."""
    prediction = record(PREDICTION, OPTIONS_OF_PREDICTION)
    image = {**record(IMAGE, OPTIONS_OF_IMAGE), "additionalProperties": prediction}
    return {
        "config.json": config_schema(),
        "input.json": object_schema(ImageSpec, required=("shape", "low", "high")),
        "metrics.jsonl": {"anyOf": [object_schema(ValidationRecord), object_schema(TrainRecord)]},
        "result.json": object_schema(RunResult),
        "evaluation-SPLIT.json": record(EVALUATION, OPTIONS_OF_EVALUATION),
        "calibration.json": record(CALIBRATION),
        "predictions.json": {"type": "array", "items": image},
        "points.json": record(POINTS),
    }


def pages() -> dict[str, str]:
    """The page and the schemas."""
    _, files, note = (mtljax.runs.folder.__doc__ or "").split("\n\n")
    lines = ["# Run folder", "", "A run writes these files:", "", "```text", files, "```", ""]
    lines += [inline(" ".join(note.split())), "", "The schemas are JSON Schema, 2020-12.", ""]
    result = {}
    for file, schema in schemas().items():
        name = f"{file.partition('.')[0]}.schema.json"
        result[name] = json.dumps({"$schema": DRAFT, "title": file, **schema}, indent=1) + "\n"
        lines += [f"## {file}", "", f"{{download}}`{name}`", ""]
        for part in schema.get("anyOf", [schema.get("items", schema)]):
            lines += [*_table(part), ""]
    return {"index.md": "\n".join(lines), **result}


def _table(schema: dict[str, Any]) -> list[str]:
    return ["| name | type | meaning |", "|---|---|---|", *_rows(schema, "")]


def _rows(schema: dict[str, Any], prefix: str) -> Iterator[str]:
    for name, value in schema["properties"].items():
        required = "" if name in schema["required"] else ", may be missing"
        text = cell(value.get("description", ""))
        yield f"| `{prefix}{name}` | {', '.join(_types(value))}{required} | {text} |"
        for part in value.get("anyOf", [value]):
            yield from _inner_rows(part, f"{prefix}{name}.")
    yield from _inner_rows({"additionalProperties": schema.get("additionalProperties")}, prefix)


def _inner_rows(schema: dict[str, Any], prefix: str) -> Iterator[str]:
    """Rows of the fields of an object, and of the objects by task in it."""
    if "properties" in schema:
        yield from _rows(schema, prefix)
    elif "properties" in (inner := schema.get("additionalProperties") or {}):
        yield from _rows(inner, f"{prefix}TASK.")


def _types(schema: dict[str, Any]) -> list[str]:
    if "anyOf" in schema:
        return list(dict.fromkeys(kind for part in schema["anyOf"] for kind in _types(part)))
    if "enum" in schema:
        return [f"`{json.dumps(value)}`" for value in schema["enum"]]
    kind = schema.get("type", "any")
    return kind if isinstance(kind, list) else [kind]


def write_pages(app: Sphinx) -> None:
    """Writes the page and the schemas."""
    write_folder(FOLDER, pages())


def setup(app: Sphinx) -> dict[str, Any]:
    """Connects to Sphinx's events."""
    app.connect("builder-inited", write_pages)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
