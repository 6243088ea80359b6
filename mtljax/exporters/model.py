"""Exportable form of a trained model: a function of images, its weights and a description."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.interpreters import partial_eval
from jaxtyping import Array, Num, PyTree

import mtljax
from mtljax.config import to_json
from mtljax.runs.load import TrainedModel, select_tasks
from mtljax.step.eval_step import predict
from mtljax.tasks import Task
from mtljax.utils.files import json_text
from mtljax.utils.tree import flatten, unflatten

INPUT, BATCH = "image", "b"
"""Names of the input and of its batch axis."""


class Model(NamedTuple):
    """Trained model without its experiment."""

    name: str
    """Name of the experiment."""
    outputs: Callable[[Num[Array, "b H W C"]], dict[str, Array]]
    """Function of images that returns {"TASK/output": ..., "TASK/prediction": ...}, batch first."""
    image: jax.ShapeDtypeStruct
    """Shape and dtype of one image, without the batch axis."""
    variables: Mapping[str, PyTree[Array]]
    """The model's collections: parameters, batch statistics, constants."""
    description: dict[str, Any]
    """JSON for users of the exported file; see `describe`."""


def model_of(trained: TrainedModel, names: Sequence[str] = ()) -> Model:
    """Returns the exportable form of a trained run.

    Args:
      names: Tasks to export, without the variables that only other tasks use; (): all.

    Raises:
      ValueError: The run has no such task.
    """
    tasks = select_tasks(trained.experiment.tasks, names)
    image = jax.ShapeDtypeStruct(trained.shape, trained.dtype)

    def apply(variables: Mapping[str, PyTree], image: Array) -> dict[str, Array]:
        rest = {name: tree for name, tree in variables.items() if name != "params"}
        state = trained.state.replace(params=variables["params"], model_state=rest, ema=None)
        raw = predict(trained.model, state, image)
        return flatten(
            {t.name: {"output": raw[t.name], "prediction": t.decode(raw[t.name])} for t in tasks}
        )

    leaves = flatten(trained.state.variables)
    used = leaves
    if len(tasks) < len(trained.experiment.tasks):
        used = _used_leaves(apply, leaves, image)

    def outputs(image: Num[Array, "b H W C"]) -> dict[str, Array]:
        # Zeros are computed in the exported program, which therefore has no other weights.
        zeros = lambda x: jnp.zeros(x.shape, x.dtype)
        variables = {path: used[path] if path in used else zeros(x) for path, x in leaves.items()}
        return apply(unflatten(variables), image)

    description = describe(trained, tasks, outputs, image)
    return Model(trained.experiment.name, outputs, image, unflatten(used), description)


def _used_leaves(
    apply: Callable[[Mapping[str, PyTree], Array], PyTree],
    leaves: Mapping[str, Array],
    image: jax.ShapeDtypeStruct,
) -> dict[str, Array]:
    """Returns the variables, by path, that the outputs depend on."""
    images = jax.ShapeDtypeStruct((1, *image.shape), image.dtype)
    run = lambda values, images: apply(unflatten(dict(zip(leaves, values, strict=True))), images)
    traced = jax.make_jaxpr(run)(list(leaves.values()), images).jaxpr
    _, used = partial_eval.dce_jaxpr(traced, [True] * len(traced.outvars))
    paths = [path for path, is_used in zip(leaves, used, strict=False) if is_used]
    return {path: leaves[path] for path in paths}


def describe(
    trained: TrainedModel,
    tasks: Sequence[Task],
    outputs: Callable[[Array], dict[str, Array]],
    image: jax.ShapeDtypeStruct,
) -> dict[str, Any]:
    """Describes the input and outputs of a model.

    Returns:
      JSON with `mtljax`, the version; `step` of the checkpoint; `input`, {name, shape, dtype,
      black, white}; `outputs`, {name: {shape, dtype}}; `tasks`, {name: meaning of its output and
      prediction, and class names}; `preference`, {task: share}, of a model conditioned on it;
      `config`, the experiment.
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
        "tasks": {task.name: _meaning(task) for task in tasks},
        **({} if trained.preference is None else {"preference": trained.preference}),
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
