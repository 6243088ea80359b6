"""Knowledge distillation: a multi-task student learns from single-task teachers.

The distance from a teacher is added to the loss of its task before balancing, so the balancer still
reads T losses. It counts for examples that carry the task's label, in proportion to their number of
labels (pixels, points).
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from mtljax.models.layers import dense, resize
from mtljax.models.multitask import FEATURES, without_pooling
from mtljax.models.partition import TASK_PREFIX
from mtljax.tasks.base import Task

ADAPTERS = "adapters"
"""Module of the student's parameters that only distillation uses."""


class TaskOutput(NamedTuple):
    """Output and features of a network for one task."""

    output: PyTree
    """Output of the task's head."""
    features: Float[Array, "B ... C"] | None
    """Last features that the task's head reads; None if the model does not record them."""


TaskOutputs = Mapping[str, TaskOutput]
"""Task -> output and features."""


@dataclasses.dataclass(frozen=True)
class DistillationLoss:
    """Distance between student and teacher.

    Attributes:
      weight: Weight relative to the loss of the label.
    """

    weight: float = 1.0

    def __post_init__(self) -> None:
        for field, value in vars(self).items():
            if not 0 < value < float("inf"):
                raise ValueError(f"distillation: {field} must be > 0 and finite, not {value}")

    def adapter(self, student: TaskOutput, teacher: TaskOutput) -> nn.Module | None:
        """Returns a learned projection from student features to teacher features, if needed.

        Reads shapes only; raises ValueError if the two cannot be compared.
        """
        raise NotImplementedError

    def distance(self, task: Task, student: TaskOutput, teacher: TaskOutput) -> Float[Array, " B"]:
        """Returns the distance of the student, with projected features, for each image."""
        raise NotImplementedError


@dataclasses.dataclass(frozen=True)
class Outputs(DistillationLoss):
    """Imitates the teachers' outputs: softened probabilities for tasks with logits.

    Adds `weight` times the mean `Task.distance` to the loss of each task that has a teacher.

    Attributes:
      temperature: A higher one gives more weight to classes that the teacher finds unlikely.

    References:
      Hinton et al., 2015, arXiv:1503.02531
    """

    temperature: float = 2.0

    def adapter(self, student: TaskOutput, teacher: TaskOutput) -> None:
        shapes = lambda side: jax.tree.map(lambda x: x.shape[1:], side.output)
        expected, shape = shapes(student), shapes(teacher)
        if shape != expected:
            raise ValueError(
                f"its output has shape {shape}, the student's {expected}; use a teacher that was "
                "trained on the same labels, or --distill features"
            )

    def distance(self, task: Task, student: TaskOutput, teacher: TaskOutput) -> Float[Array, " B"]:
        return task.distance(student.output, teacher.output, self.temperature)


@dataclasses.dataclass(frozen=True)
class Features(DistillationLoss):
    """Imitates the teachers' features through a learned linear map per task.

    Adds `weight` times the mean over positions of |a / |a| - f / |f||^2: f are the last features
    that the teacher's head reads, a the student's after a 1x1 convolution, which is trained along
    and not used after training.

    References:
      Li & Bilen, 2020, arXiv:2007.06889; with norms per position, as in the authors' code
    """

    def adapter(self, student: TaskOutput, teacher: TaskOutput) -> nn.Module:
        source, target = student.features, teacher.features
        if source is None or target is None:
            raise ValueError("a model other than MultiTask does not record features")
        if source.ndim != target.ndim:
            raise ValueError(
                f"its features have shape {target.shape[1:]}, the student's {source.shape[1:]}: "
                "use trunks that both return maps, or --distill outputs"
            )
        xavier = nn.initializers.glorot_normal()
        return dense(target.shape[-1], use_bias=False, kernel_init=xavier)

    def distance(self, task: Task, student: TaskOutput, teacher: TaskOutput) -> Float[Array, " B"]:
        del task
        source, target = student.features, teacher.features
        assert source is not None
        assert target is not None
        if source.ndim == 4:
            source = resize(source, target.shape[1:3])
        square = ((_unit(source) - _unit(target)) ** 2).sum(-1)
        return square.reshape(square.shape[0], -1).mean(-1)


DISTILLATIONS: dict[str, Callable[..., DistillationLoss]] = {
    "outputs": Outputs,
    "features": Features,
}
"""Distillation distances by name."""


class Teacher(NamedTuple):
    """Trained network and the tasks that it teaches."""

    model: nn.Module
    """Network of the teacher."""
    tasks: tuple[str, ...]
    """Names of the tasks."""
    name: str = "a teacher"
    """Name in error messages."""


@dataclasses.dataclass(frozen=True)
class Distillation:
    """Teachers and the distance from them.

    Attributes:
      kind: Distance, of a class of `DISTILLATIONS`.
      teachers: At most one per task.
      variables: Variables of each teacher; part of the train state, but not of its checkpoints.
    """

    kind: DistillationLoss
    teachers: tuple[Teacher, ...]
    variables: tuple[PyTree, ...] = dataclasses.field(compare=False)

    def teacher_outputs(self, variables: Sequence[PyTree], image: PyTree) -> dict[str, TaskOutput]:
        """Returns {task: output of its teacher} in evaluation mode and float32."""
        outputs = {}
        for teacher, teacher_variables in zip(self.teachers, variables, strict=True):
            by_task = _task_outputs(teacher.model, teacher_variables, image)
            outputs.update({task: by_task[task] for task in teacher.tasks})
        return outputs

    def init_adapters(
        self, key: jax.Array, model: nn.Module, variables: PyTree, image: PyTree
    ) -> dict[str, PyTree]:
        """Returns additional parameters of a student: {ADAPTERS: ...}, or {} if none are needed."""
        student = jax.eval_shape(lambda v, x: _task_outputs(model, v, x), variables, image)
        params = {}
        for task, teacher in jax.eval_shape(self.teacher_outputs, self.variables, image).items():
            try:
                adapter = self.kind.adapter(student[task], teacher)
            except ValueError as error:
                name = next(t.name for t in self.teachers if task in t.tasks)
                raise ValueError(f"{name} cannot teach {task!r}: {error}") from None
            if adapter is not None:
                key, adapter_key = jax.random.split(key)
                zeros = jnp.zeros(student[task].features.shape)
                params[TASK_PREFIX + task] = adapter.init(adapter_key, zeros)["params"]
        return {ADAPTERS: params} if params else {}

    def distances(
        self, tasks: Sequence[Task], student: TaskOutputs, teachers: TaskOutputs, params: PyTree
    ) -> dict[str, Float[Array, " B"]]:
        """Returns {task: weighted distance of each image} for the tasks with a teacher.

        `params` are the student's, including adapters; for `teachers` see `teacher_outputs`.
        """
        distances = {}
        for task in tasks:
            if task.name not in teachers:
                continue
            source, target = student[task.name], teachers[task.name]
            adapter = self.kind.adapter(source, target)
            if adapter is not None:
                variables = {"params": params[ADAPTERS][TASK_PREFIX + task.name]}
                projected = adapter.apply(variables, source.features)
                source = TaskOutput(source.output, jnp.asarray(projected))
            distances[task.name] = self.kind.weight * self.kind.distance(task, source, target)
        return distances


def _task_outputs(model: nn.Module, variables: PyTree, image: PyTree) -> dict[str, TaskOutput]:
    result = without_pooling(model).apply(variables, image, train=False, mutable=[FEATURES])
    outputs, collections = jax.tree.map(lambda x: x.astype(jnp.float32), result)
    features = collections.get(FEATURES, {})
    return {task: TaskOutput(output, features.get(task)) for task, output in outputs.items()}


def _unit(x: Float[Array, "... C"]) -> Float[Array, "... C"]:
    """Scales to length 1 along the last axis; the constant keeps the gradient finite at 0."""
    return x / jnp.sqrt((x**2).sum(-1, keepdims=True) + 1e-6)
