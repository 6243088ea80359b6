"""Evaluation step."""

from collections.abc import Callable, Mapping, Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, PyTree

from mtljax.step.axis import Axis
from mtljax.step.state import Batch, TrainState
from mtljax.tasks.base import Task


def make_eval_step(
    model: nn.Module, tasks: Sequence[Task], *, axis_name: str | None = None
) -> Callable[[TrainState, Batch], dict[str, dict]]:
    """Makes `eval_step(state, batch) -> {task: metric state of this batch}`: pure.

    The states are summed by `mtljax.evaluation.evaluator.summarise`, which makes the metrics exact
    over any number of batches. Averaged parameters are used where the state has them. Padding is
    marked by `present` False for every task.

    Args:
      model: See `mtljax.models`.
      tasks: See `mtljax.tasks`.
      axis_name: Of the enclosing `pmap` or `shard_map`, if any.
    """

    def eval_step(state: TrainState, batch: Batch) -> dict[str, dict]:
        outputs = predict(model, state, batch["image"])
        axis = Axis(axis_name)
        return measure(tasks, axis.gather(outputs), axis.gather({**batch, "image": ()}))

    return eval_step


def measure(tasks: Sequence[Task], outputs: Mapping[str, PyTree], batch: Batch) -> dict[str, dict]:
    """{task: {"loss": (sum, count), "metrics": state}} of one batch whose outputs are known."""
    measured = {}
    for task in tasks:
        output, label = outputs[task.name], batch["labels"][task.name]
        present = batch["present"][task.name]
        metrics = task.metrics
        measured[task.name] = {
            "loss": task.loss(output, label, present),
            "metrics": metrics.update(metrics.empty(), output, label, present),
        }
    return measured


def predict(model: nn.Module, state: TrainState, image: Array) -> dict[str, Array]:
    """{task: output} in evaluation mode, in float32, by averaged parameters where there are any."""
    outputs = model.apply(state.variables, image, train=False)
    return jax.tree.map(lambda x: x.astype(jnp.float32), outputs)
