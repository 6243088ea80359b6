"""What an export is made of: a function of images, its weights, and what both are about."""

import inspect
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
from jaxtyping import Array, Num

import mtljax
from mtljax.config import to_json
from mtljax.runs.load import TrainedModel
from mtljax.step.eval_step import predict
from mtljax.tasks import Task
from mtljax.utils.files import json_text
from mtljax.utils.tree import flatten

INPUT, BATCH = "image", "b"
"""What the input, and its first axis, are called."""


class Model(NamedTuple):
    """A trained model, apart from the experiment that it comes from."""

    name: str
    outputs: Callable[[Num[Array, "b H W C"]], dict[str, Array]]
    """From images to `{"TASK/output": ..., "TASK/prediction": ...}`, all with the axis b first."""
    image: jax.ShapeDtypeStruct
    """One image, without the axis b."""
    variables: Mapping[str, Any]
    """The model's collections: parameters, batch statistics, constants."""
    description: dict[str, Any]
    """What the user of a file must know, in plain JSON; see `describe`."""


def model_of(trained: TrainedModel) -> Model:
    """What is exported of a trained run."""
    experiment, state = trained.experiment, trained.state
    image = jax.ShapeDtypeStruct(trained.shape, trained.dtype)

    def outputs(image: Num[Array, "b H W C"]) -> dict[str, Array]:
        found = predict(trained.model, state, image)
        return flatten(
            {
                task.name: {"output": found[task.name], "prediction": task.decode(found[task.name])}
                for task in experiment.tasks
            }
        )

    return Model(
        name=experiment.name,
        outputs=outputs,
        image=image,
        variables=state.variables,
        description=describe(trained, outputs, image),
    )


def describe(
    trained: TrainedModel, outputs: Callable[[Array], dict[str, Array]], image: jax.ShapeDtypeStruct
) -> dict[str, Any]:
    """What goes into a model and what comes out.

    Returns:
      `mtljax`, the version; `step` of the checkpoint; `input`, {shape, dtype, black, white};
      `outputs`, {name: {shape, dtype}}; `tasks`, {name: what its output and its prediction mean,
      and the classes' names}; `config`, the experiment.
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
    """What a task's docstrings say of its output and its prediction."""
    first = lambda thing: " ".join((inspect.getdoc(thing) or "").split("\n\n")[0].split())
    names = getattr(task, "class_names", ())
    return {
        "kind": type(task).__name__,
        "output": first(type(task)),
        "prediction": first(type(task).decode),
        **({"class_names": list(names)} if names else {}),
    }


def as_words(description: Mapping[str, Any]) -> dict[str, str]:
    """The description for formats that know only words: JSON of whatever is none."""
    return {
        key: value if isinstance(value, str) else json_text(value).rstrip()
        for key, value in description.items()
    }


def as_bytes(description: Mapping[str, Any]) -> bytes:
    """The description as a file."""
    return json_text(description, indent=2).encode()
