"""Losses of the tasks on one batch, and their gradients.

`Objective.forward` (one forward pass) -> `task_gradients` (a gradient per task) -> the balancer, in
`balanced_gradient` -> a pullback.
"""

import contextlib
import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Literal, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float, PyTree

from mtljax.models.batch_statistics import frozen_statistics
from mtljax.models.multitask import FEATURES, without_pooling
from mtljax.models.partition import PERTURBATIONS, REPRESENTATION, Flat, join
from mtljax.parallel import Constraints
from mtljax.step.axis import Axis
from mtljax.step.distillation import Distillation, TaskOutput
from mtljax.tasks.base import Task
from mtljax.utils.tree import num_examples

Batch = Mapping[str, PyTree]
"""`{"image": [B, ...], "labels": {task: array}, "present": {task: [B] bool}}`; the image may be a
pytree of arrays, for a model that takes one."""
ByTask = Mapping[str, PyTree]
"""Task -> value."""
ModelState = Mapping[str, PyTree]
"""Collections of a model other than its parameters: batch statistics, constants."""
Params = tuple[Flat, Flat]
"""(shared, task-specific) trainable parameters, or their gradient."""
Level = Literal["parameters", "features"]
"""Level of the gradients that a balancer reads; see `make_train_step`."""
Pullback = Literal["auto", "vmap", "loop"] | int
"""Computation of the rows of the Jacobian: all at once by `vmap`, in a `loop`, or in chunks of this
size; `auto` was fastest in measurements (see `mtljax.step.task_gradients`)."""


class Inputs(NamedTuple):
    """Inputs of the losses other than parameters."""

    model_state: ModelState
    """Collections of the model other than parameters."""
    batch: Batch
    """Images, labels and masks of the labeled examples."""
    key: jax.Array
    """Key for dropout."""


class Gradients(NamedTuple):
    """Result of a pullback."""

    shared: Flat
    """Gradient of the shared parameters, by path."""
    specific: Flat
    """Gradient of the task-specific parameters, by path."""
    representation: PyTree
    """Gradient of the representation; empty for `level="parameters"`."""

    def placed(self, place: Callable[[Flat], Flat]) -> "Gradients":
        """Returns a copy with the gradients of parameters placed by a function."""
        return self._replace(shared=place(self.shared), specific=place(self.specific))


class TaskLosses(NamedTuple):
    """Losses of one batch in R rows."""

    sums: list[Float[Array, ""]]
    """One scalar per row, so that the pullback of a row does not visit other heads."""
    counts: Float[Array, " R"]
    """Number of labels of each row."""
    representation: PyTree
    """Features that all losses depend on; empty if none are marked."""
    model_state: ModelState
    """Collections of the model after the forward pass."""


class Forward(NamedTuple):
    """One forward pass and its pullback.

    There are R = S * T rows, sample by sample, for a balancer that reads S independent samples of T
    tasks; S is 1 for most balancers.
    """

    sums: Float[Array, " R"]
    """Sum of the losses of each row."""
    counts: Float[Array, " R"]
    """Number of labels of each row."""
    model_state: ModelState
    """Collections of the model after the forward pass."""
    pullback: Callable[..., Gradients]
    """`(cotangents [R], representation=None)`: gradient of sum_r cotangents[r] * sums[r], with
    `representation` added to the cotangent of the representation; linear in both."""
    pullback_rows: Callable[[int, int], Gradients]
    """`(start, stop)`: gradient of each of sums[start:stop], with rows as the first axis; modules
    that only other rows depend on are not visited."""
    devices: int
    """Devices that the batch is sharded over, under `jit`."""


@dataclasses.dataclass(frozen=True)
class Objective:
    """Losses of all tasks as a function of parameters and batch, in training mode.

    Attributes:
      model: Multi-task network.
      tasks: Tasks in the order of the rows.
      level: `features` also takes gradients with respect to the representation.
      samples: S, independent samples that the batch is split into; example i is in sample i mod S.
      dtype: Compute dtype of the model; parameters and losses stay float32. None: unchanged.
      axis: Axis over which the batch is sharded.
      freeze_statistics: Batch normalization works as in evaluation.
      distillation: Teachers, whose distances are added to the losses.
      constraints: Placement of sharded parameters.
      frozen: Parameters that no gradient is taken of.
      teachers: Variables of the teachers.
    """

    model: nn.Module
    tasks: tuple[Task, ...]
    level: Level = "parameters"
    samples: int = 1
    dtype: DTypeLike | None = None
    axis: Axis = Axis()
    freeze_statistics: bool = False
    distillation: Distillation | None = None
    constraints: Constraints = Constraints()
    frozen: Flat = dataclasses.field(default_factory=dict, compare=False)
    teachers: Sequence[PyTree] = dataclasses.field(default=(), compare=False)

    def with_constants(self, frozen: Flat, teachers: Sequence[PyTree]) -> "Objective":
        """Returns a copy with the arrays that the losses depend on and that are not trained."""
        return dataclasses.replace(self, frozen=frozen, teachers=teachers)

    @property
    def network(self) -> nn.Module:
        """The model; with teachers, the form whose features and representation are maps."""
        return self.model if self.distillation is None else without_pooling(self.model)

    def losses(self, params: Params, inputs: Inputs) -> Float[Array, " R"]:
        """Returns the sum of the losses of each row."""
        return jnp.stack(self.task_losses(params, inputs).sums)

    def task_losses(self, params: Params, inputs: Inputs, perturbation: PyTree = ()) -> TaskLosses:
        """Runs the model on a batch; `perturbation` is added to the representation, if any."""
        model_state, batch, key = inputs
        mutable = _mutable(model_state)
        tree = join(*params, self.frozen)
        # Cast first: half the bytes to gather in bfloat16.
        variables = {"params": self.constraints.gather(_cast(tree, self.dtype)), **model_state}
        if jax.tree.leaves(perturbation):
            variables[PERTURBATIONS] = perturbation
            mutable.append(REPRESENTATION)
        if self.distillation is not None:
            mutable.append(FEATURES)
        image = _cast(batch["image"], self.dtype)
        with frozen_statistics() if self.freeze_statistics else contextlib.nullcontext():
            outputs, changed = self.network.apply(
                variables, image, train=True, rngs={"dropout": key}, mutable=mutable
            )
        changed = dict(changed)
        representation = changed.pop(REPRESENTATION, {})
        outputs, features = _cast((outputs, changed.pop(FEATURES, {})), jnp.float32)
        distances = self._distances(outputs, features, image, tree)
        sums, counts = self._sums_and_counts(outputs, batch, distances)
        return TaskLosses(sums, counts, representation, {**model_state, **changed})

    def forward(self, params: Params, inputs: Inputs) -> Forward:
        """Linearizes `task_losses`."""
        zeros: PyTree = {}
        if self.level == "features":
            tree = join(*params, self.frozen)
            zeros = self.representation_zeros(tree, inputs.model_state, inputs.batch["image"])

        def differentiable(shared: Flat, specific: Flat, perturbation: PyTree) -> PyTree:
            losses = self.task_losses((shared, specific), inputs, perturbation)
            return (losses.sums, losses.representation), (losses.counts, losses.model_state)

        primals = *params, zeros
        (sums, _), push, (counts, new_state) = jax.linearize(differentiable, *primals, has_aux=True)

        def transpose(push: Callable, cotangents: PyTree) -> Gradients:
            return Gradients(*jax.linear_transpose(push, *primals)(cotangents))

        def pullback(cotangents: Float[Array, " R"], representation: PyTree = None) -> Gradients:
            if representation is None:
                gradients = transpose(lambda *tangents: push(*tangents)[0], list(cotangents))
            else:
                gradients = transpose(push, (list(cotangents), representation))
            return gradients.placed(self.constraints.shard)

        def pullback_rows(start: int, stop: int) -> Gradients:
            rows = lambda *tangents: push(*tangents)[0][start:stop]
            if stop == start + 1:
                row = transpose(rows, [jnp.ones(())])
                gradients = jax.tree.map(lambda x: x[None], row)
            else:
                eye = jnp.eye(stop - start)
                gradients = jax.vmap(lambda row: transpose(rows, list(row)))(eye)
            return gradients.placed(self.constraints.shard_rows)

        devices = self.constraints.devices
        return Forward(jnp.stack(sums), counts, new_state, pullback, pullback_rows, devices)

    def representation_zeros(
        self, params: PyTree, model_state: ModelState, image: PyTree
    ) -> PyTree[Float[Array, "B ..."]]:
        """Returns zeros in the shape of the representation: a perturbation without effect."""

        def perturbations(params: PyTree, image: PyTree) -> PyTree:
            variables = {"params": _cast(params, self.dtype), **model_state}
            mutable = [PERTURBATIONS, *_mutable(model_state)]
            image, rngs = _cast(image, self.dtype), {"dropout": jax.random.key(0)}
            _, collections = self.network.apply(
                variables, image, train=True, rngs=rngs, mutable=mutable
            )
            return collections.get(PERTURBATIONS, {})

        shapes = jax.eval_shape(perturbations, params, image)
        zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
        if not jax.tree.leaves(zeros):
            raise ValueError(
                "level='features', or the balancer, needs one representation that the losses of "
                "all tasks depend on, and this model marks none (see "
                "mtljax.models.mark_representation); use level='parameters' or another balancer"
            )
        return zeros

    def _distances(
        self, outputs: ByTask, features: ByTask, image: PyTree, params: PyTree
    ) -> dict[str, Float[Array, " B"]]:
        """Returns {task: weighted distance from its teacher for each image}."""
        if self.distillation is None:
            return {}
        cast = lambda variables: {**variables, "params": _cast(variables["params"], self.dtype)}
        names = [task.name for task in self.tasks]
        student = {name: TaskOutput(outputs[name], features.get(name)) for name in names}
        teachers = self.distillation.teacher_outputs(list(map(cast, self.teachers)), image)
        return self.distillation.distances(self.tasks, student, teachers, params)

    def _sums_and_counts(
        self, outputs: ByTask, batch: Batch, distances: Mapping[str, Float[Array, " B"]]
    ) -> tuple[list[Float[Array, ""]], Float[Array, " R"]]:
        size = num_examples(batch["image"])
        sample_of = (self.axis.index() * size + jnp.arange(size)) % self.samples
        pairs = []
        for sample in range(self.samples):
            for task in self.tasks:
                present = batch["present"][task.name]
                if self.samples > 1:
                    present = present & (sample_of == sample)
                labeled = outputs[task.name], batch["labels"][task.name], present
                total, count = task.loss(*labeled)
                if task.name in distances:
                    total += (label_counts(task, *labeled) * distances[task.name]).sum()
                pairs.append((total, count))
        sums, counts = zip(*pairs, strict=True)
        return [x.astype(jnp.float32) for x in sums], jnp.stack(counts).astype(jnp.float32)


def label_counts(
    task: Task, output: PyTree, label: PyTree, present: Bool[Array, " B"]
) -> Float[Array, " B"]:
    """Returns the number of labels of a task (pixels, points, or one) in each example."""

    def count(*example: PyTree) -> Float[Array, ""]:
        return task.loss(*jax.tree.map(lambda x: x[None], example))[1]

    return jax.vmap(count)(output, label, present)


def _mutable(model_state: ModelState) -> list[str]:
    return [name for name in model_state if name != "constants"]


def _cast(tree: PyTree, dtype: DTypeLike | None) -> PyTree:
    is_float = lambda x: jnp.issubdtype(jnp.result_type(x), jnp.floating)
    cast = lambda x: x.astype(dtype) if is_float(x) else x
    return tree if dtype is None else jax.tree.map(cast, tree)
