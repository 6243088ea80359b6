"""Evaluation step."""

from collections.abc import Callable, Mapping, Sequence
from typing import TypedDict

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import PyTree

from mtljax.step.axis import Axis
from mtljax.step.state import Batch, TrainState
from mtljax.tasks.base import SumAndCount, Task


class TaskMeasurement(TypedDict):
    """Loss and metric state of one task on one batch."""

    loss: SumAndCount
    """(sum of losses, number of labels)."""
    metrics: PyTree
    """Metric state; see `Task.metrics`."""


def make_eval_step(
    model: nn.Module, tasks: Sequence[Task], *, axis_name: str | None = None
) -> Callable[[TrainState, Batch], dict[str, TaskMeasurement]]:
    """Creates `eval_step(state, batch) -> {task: measurement of this batch}`, a pure function.

    `mtljax.evaluation.evaluator.compute_metrics` merges the measurements of all batches into
    exact metrics. The averaged parameters are used if the state has them. Padding examples have
    `present` False for every task.

    Args:
      model: Multi-task network.
      tasks: Tasks to evaluate.
      axis_name: Axis of the enclosing `pmap` or `shard_map`; None without one.
    """
    axis = Axis(axis_name)

    def eval_step(state: TrainState, batch: Batch) -> dict[str, TaskMeasurement]:
        outputs = axis.all_gather(predict(model, state, batch["image"]))
        return measure(tasks, outputs, axis.all_gather({**batch, "image": ()}))

    return eval_step


def measure(
    tasks: Sequence[Task], outputs: Mapping[str, PyTree], batch: Batch
) -> dict[str, TaskMeasurement]:
    """Returns {task: loss and metric state} of one batch with given outputs."""

    def measure_task(task: Task) -> TaskMeasurement:
        labels = batch["labels"][task.name], batch["present"][task.name]
        return {
            "loss": task.loss(outputs[task.name], *labels),
            "metrics": task.metrics.update(task.metrics.empty(), outputs[task.name], *labels),
        }

    return {task.name: measure_task(task) for task in tasks}


def predict(model: nn.Module, state: TrainState, image: PyTree) -> dict[str, PyTree]:
    """Returns {task: output} in evaluation mode and float32, by averaged parameters if any."""
    outputs = model.apply(state.variables, image, train=False)
    return jax.tree.map(lambda x: x.astype(jnp.float32), outputs)
