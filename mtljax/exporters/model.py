"""Exportable form of a trained model: a function of images, its weights and a description."""

import inspect
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
from jaxtyping import Array, Num, PyTree

import mtljax
from mtljax.config import to_json
from mtljax.runs.load import TrainedModel
from mtljax.step.eval_step import predict
from mtljax.tasks import Task
from mtljax.utils.files import json_text
from mtljax.utils.tree import flatten

INPUT, BATCH = "image", "b"
"""Names of the input and of its batch axis."""


class Model(NamedTuple):
    """Trained model without its experiment."""

    name: str
    outputs: Callable[[Num[Array, "b H W C"]], dict[str, Array]]
    """Function of images that returns {"TASK/output": ..., "TASK/prediction": ...}, batch first."""
    image: jax.ShapeDtypeStruct
    """Shape and dtype of one image, without the batch axis."""
    variables: Mapping[str, PyTree[Array]]
    """The model's collections: parameters, batch statistics, constants."""
    description: dict[str, Any]
    """JSON for users of the exported file; see `describe`."""


def model_of(trained: TrainedModel) -> Model:
    """Returns the exportable form of a trained run."""
    experiment, state = trained.experiment, trained.state
    image = jax.ShapeDtypeStruct(trained.shape, trained.dtype)

    def outputs(image: Num[Array, "b H W C"]) -> dict[str, Array]:
        raw = predict(trained.model, state, image)
        return flatten(
            {
                task.name: {"output": raw[task.name], "prediction": task.decode(raw[task.name])}
                for task in experiment.tasks
            }
        )

    description = describe(trained, outputs, image)
    return Model(experiment.name, outputs, image, state.variables, description)


def describe(
    trained: TrainedModel, outputs: Callable[[Array], dict[str, Array]], image: jax.ShapeDtypeStruct
) -> dict[str, Any]:
    """Describes the input and outputs of a model.

    Returns:
      JSON with `mtljax`, the version; `step` of the checkpoint; `input`, {name, shape, dtype,
      black, white}; `outputs`, {name: {shape, dtype}}; `tasks`, {name: meaning of its output and
      prediction, and class names}; `config`, the experiment.
    """
    one = jax.ShapeDtypeStruct((1, *image.shape), image.dtype)
    shapes = jax.eval_shape(outputs, one)
    with_batch = lambda shape, dtype: {"shape": [BATCH, *shape], "dtype": str(dtype)}
    return {
        "mtljax": mtljax.__version__,
        "step": trained.step,
        "input": {
            "name": INPUT,
            **with_batch(image.shape, image.dtype),
            "black": trained.low,
            "white": trained.high,
        },
        "outputs": {name: with_batch(leaf.shape[1:], leaf.dtype) for name, leaf in shapes.items()},
        "tasks": {task.name: _meaning(task) for task in trained.experiment.tasks},
        "config": to_json(trained.experiment),
    }


def _meaning(task: Task) -> dict[str, Any]:
    """Meaning of a task's output and prediction, from docstrings."""
    first = lambda thing: " ".join((inspect.getdoc(thing) or "").split("\n\n")[0].split())
    names = getattr(task, "class_names", ())
    return {
        "kind": type(task).__name__,
        "output": first(type(task)),
        "prediction": first(type(task).decode),
        **({"class_names": list(names)} if names else {}),
    }


def as_strings(description: Mapping[str, Any]) -> dict[str, str]:
    """Description for formats that store strings only; other values as JSON."""
    return {
        key: value if isinstance(value, str) else json_text(value).rstrip()
        for key, value in description.items()
    }
