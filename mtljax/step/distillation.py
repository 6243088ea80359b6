"""Knowledge distillation: a network for all tasks learns from networks that know one each.

What a teacher says is added to its task's loss before anything else sees it, so that the balancer
still reads T losses. It counts for the examples that carry the task's label, and for each of them
in proportion to its labels (pixels, points).
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from mtljax.models.layers import dense, resize
from mtljax.models.multitask import FEATURES, with_maps
from mtljax.models.partition import PREFIX
from mtljax.tasks.base import Task

ADAPTERS = "adapters"
"""Where the student's parameters have those that only distillation uses."""


class Seen(NamedTuple):
    """What a network makes of a batch, for one task."""

    output: Any
    features: Any
    """The last ones that the task's head reads, [B, ..., C]; None if the model does not tell."""


class Kind(Protocol):
    """What of a teacher is imitated."""

    @property
    def weight(self) -> float:
        """Of the teacher against the label."""

    def adapter(self, student: Seen, teacher: Seen) -> nn.Module | None:
        """What takes the student's features to the teacher's, if it has to be learned.

        Args:
          student, teacher: Shapes.

        Raises:
          ValueError: The two cannot be compared.
        """

    def distance(self, task: Task, student: Seen, teacher: Seen) -> Float[Array, " B"]:
        """How far the student is from the teacher, once its features are adapted."""


@dataclasses.dataclass(frozen=True)
class Outputs:
    """Made by `outputs`."""

    weight: float
    temperature: float

    def __post_init__(self):
        _require_positive(self, "weight", "temperature")

    def adapter(self, student, teacher):
        ours, theirs = (jax.tree.map(lambda x: x.shape[1:], s.output) for s in (student, teacher))
        if ours != theirs:
            raise ValueError(
                f"its output is of shape {theirs} and the student's of {ours}; take a teacher that "
                "was trained on the same labels, or --distill features"
            )

    def distance(self, task, student, teacher):
        return task.distance(student.output, teacher.output, self.temperature)


@dataclasses.dataclass(frozen=True)
class Features:
    """Made by `features`."""

    weight: float

    def __post_init__(self):
        _require_positive(self, "weight")

    def adapter(self, student, teacher):
        ours, theirs = student.features, teacher.features
        if ours is None or theirs is None:
            raise ValueError("a model that is not a MultiTask does not tell features")
        if ours.ndim != theirs.ndim:
            raise ValueError(
                f"its features are of shape {theirs.shape[1:]} and the student's of "
                f"{ours.shape[1:]}: take trunks that both give maps, or --distill outputs"
            )
        xavier = nn.initializers.glorot_normal()
        return dense(theirs.shape[-1], use_bias=False, kernel_init=xavier)

    def distance(self, task, student, teacher):
        del task
        ours, theirs = student.features, teacher.features
        if ours.ndim == 4:
            ours = resize(ours, theirs.shape[1:3])
        square = ((_unit(ours) - _unit(theirs)) ** 2).sum(-1)
        return square.reshape(square.shape[0], -1).mean(-1)


def outputs(weight: float = 1.0, temperature: float = 2.0) -> Kind:
    """Imitate what teachers answer: soft targets where a task has logits, else their outputs.

    Adds weight times the mean `Task.distance` to the loss of each task that has a teacher.

    Args:
      weight: Of the teacher against the label.
      temperature: The higher, the more is told of answers that the teacher thinks unlikely.

    References:
      Hinton et al., 2015, arXiv:1503.02531
    """
    return Outputs(weight, temperature)


def features(weight: float = 1.0) -> Kind:
    """Have features from which those of every teacher can be read off, by a linear map per task.

    Adds weight times |a / |a| - f / |f||^2, its mean over places: f is the last of what the
    teacher's head for the task reads, a the student's after a 1x1 convolution that is learned along
    with it and of no use afterwards.

    Args:
      weight: Of the teacher against the label.

    References:
      Li & Bilen, 2020, arXiv:2007.06889; norms are taken at every place, as in the authors' code
    """
    return Features(weight)


DISTILLATIONS: dict[str, Callable[..., Kind]] = {"outputs": outputs, "features": features}
"""Name -> function that makes a kind of distillation of its own arguments."""


class Teacher(NamedTuple):
    """A trained network, and which tasks it teaches."""

    model: nn.Module
    tasks: tuple[str, ...]
    name: str = "a teacher"
    """For messages."""


@dataclasses.dataclass(frozen=True)
class Distillation:
    """Teachers, and what of them is imitated.

    Attributes:
      kind: One of `DISTILLATIONS`, made.
      teachers: A task has at most one.
      variables: Of each teacher. They travel in the train state, but not in its checkpoints.
    """

    kind: Kind
    teachers: tuple[Teacher, ...]
    variables: tuple[PyTree, ...] = dataclasses.field(compare=False)

    def look(self, variables: Sequence[PyTree], image: Array) -> dict[str, Seen]:
        """{task: what its teacher makes of a batch}, in evaluation mode and in float32."""
        found = {}
        for teacher, own in zip(self.teachers, variables, strict=True):
            seen = _see(teacher.model, own, image)
            found.update({task: seen[task] for task in teacher.tasks})
        return found

    def adapters(
        self, key: jax.Array, model: nn.Module, variables: PyTree, image: Array
    ) -> dict[str, PyTree]:
        """What to add to the parameters of a student, which is a model with variables.

        Raises:
          ValueError: A teacher's output or features cannot be compared with the student's.
        """
        see = lambda variables, image: _see(model, variables, image)
        student, params = jax.eval_shape(see, variables, image), {}
        for task, teacher in jax.eval_shape(self.look, self.variables, image).items():
            try:
                adapter = self.kind.adapter(student[task], teacher)
            except ValueError as error:
                raise ValueError(f"{self._of(task).name} cannot teach {task!r}: {error}") from None
            if adapter is not None:
                key, own_key = jax.random.split(key)
                zeros = jnp.zeros(student[task].features.shape)
                params[PREFIX + task] = adapter.init(own_key, zeros)["params"]
        return {ADAPTERS: params} if params else {}

    def distances(
        self,
        tasks: Sequence[Task],
        student: Mapping[str, Seen],
        teachers: Mapping[str, Seen],
        params: PyTree,
    ) -> dict[str, Float[Array, " B"]]:
        """{task: weight times how far each image is from what the task's teacher makes of it}.

        Args:
          tasks: Of which some have a teacher.
          student, teachers: What they see; see `look`.
          params: The student's, with those of adapters.
        """
        found = {}
        for task in tasks:
            if task.name not in teachers:
                continue
            ours, theirs = student[task.name], teachers[task.name]
            adapter = self.kind.adapter(ours, theirs)
            if adapter is not None:
                own = {"params": params[ADAPTERS][PREFIX + task.name]}
                ours = ours._replace(features=adapter.apply(own, ours.features))
            found[task.name] = self.kind.weight * self.kind.distance(task, ours, theirs)
        return found

    def _of(self, task: str) -> Teacher:
        return next(teacher for teacher in self.teachers if task in teacher.tasks)


def _see(model: nn.Module, variables: PyTree, image: Array) -> dict[str, Seen]:
    """What a model makes of a batch, for each of its tasks."""
    seen = with_maps(model).apply(variables, image, train=False, mutable=[FEATURES])
    outputs, told = jax.tree.map(lambda x: x.astype(jnp.float32), seen)
    features = told.get(FEATURES, {})
    return {task: Seen(output, features.get(task)) for task, output in outputs.items()}


def _unit(x: Float[Array, "... C"]) -> Float[Array, "... C"]:
    """Of length 1 along the last axis; the constant keeps the gradient finite at 0."""
    return x / jnp.sqrt((x**2).sum(-1, keepdims=True) + 1e-6)


def _require_positive(kind: Kind, *fields: str) -> None:
    for field in fields:
        value = getattr(kind, field)
        if not 0 < value < float("inf"):
            raise ValueError(f"distillation: {field} must be > 0 and finite, not {value}")
