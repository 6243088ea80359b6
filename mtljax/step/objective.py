"""Per-task losses and gradients of one batch: the part of a step that costs something.

The data's way: `Objective.forward` (one forward pass) -> `task_rows` (a gradient per task, with
respect to the shared parameters or to the representation) -> the balancer, in `balance.py` -> the
pull-back again.
"""

import contextlib
import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PyTree

from mtljax.models.freezing import frozen_statistics
from mtljax.models.multitask import FEATURES, with_maps
from mtljax.models.partition import PERTURBATIONS, REPRESENTATION, Flat, join
from mtljax.step.axis import Axis
from mtljax.step.distillation import Distillation, Seen
from mtljax.tasks.base import Task

Level = Literal["parameters", "features"]
Pullback = Literal["auto", "vmap", "loop"] | int
"""How the rows of the Jacobian are pulled back: all at once by `vmap`, one after the other, or in
chunks of so many; `auto` is what was measured to be fastest (see `rows_per_pull`)."""


class Gradients(NamedTuple):
    """What one pull-back gives: by shared parameter, by task-specific one, by representation."""

    shared: Flat
    specific: Flat
    representation: PyTree


class Forward(NamedTuple):
    """One forward pass, and the way back.

    A balancer that reads S independent samples has the losses of R = S * T rows, sample by sample;
    any other has S = 1 and R = T. `sums` and `counts` are the sum of each row's losses and their
    number. `pull(cotangents [R], representation=None)` gives the gradient of
    sum_r cotangents[r] * sums[r], with `representation` added to what arrives there; it is linear
    in both. `pull_rows(start, stop)` gives the gradient of each of sums[start:stop], with an axis
    of rows first, and does not visit what only other losses depend on.
    """

    sums: Float[Array, " R"]
    counts: Float[Array, " R"]
    model_state: Mapping[str, PyTree]
    pull: Callable[..., Gradients]
    pull_rows: Callable[[int, int], Gradients]


@dataclasses.dataclass(frozen=True)
class Objective:
    """The losses of all tasks, as a function of parameters and a batch, in training mode.

    Attributes:
      model: See `mtljax.models`.
      tasks: T tasks.
      level: `features` also takes gradients with respect to the representation.
      samples: S, independent samples that the batch is split in; example i is in sample i mod S.
      dtype: Compute dtype of the model; parameters and losses stay float32. None: as they are.
      axis: What the batch is spread over.
      freeze_statistics: Batch normalisation works as in evaluation.
      distillation: What teachers add to the losses.
      frozen: Parameters that no gradient is taken of; the losses are a function of the others.
      teachers: The variables of the distillation's teachers.
    """

    model: nn.Module
    tasks: tuple[Task, ...]
    level: Level
    samples: int
    dtype: Any
    axis: Axis
    freeze_statistics: bool = False
    distillation: Distillation | None = None
    frozen: Flat = dataclasses.field(default_factory=dict, compare=False)
    teachers: Sequence[PyTree] = dataclasses.field(default=(), compare=False)

    def given(self, frozen: Flat, teachers: Sequence[PyTree]) -> "Objective":
        """The same losses, with what they depend on and does not learn."""
        return dataclasses.replace(self, frozen=frozen, teachers=teachers)

    @property
    def network(self) -> nn.Module:
        """The model; with teachers in the form whose features, and representation, are maps."""
        return self.model if self.distillation is None else with_maps(self.model)

    def losses(self, *seen: Any) -> Float[Array, " R"]:
        """The sum of each row's losses of one batch, from the arguments of `look`."""
        return jnp.stack(self.look(*seen)[0])

    def look(
        self,
        shared: Flat,
        specific: Flat,
        model_state: Mapping[str, PyTree],
        batch: Mapping[str, Any],
        key: jax.Array,
        perturbation: PyTree = (),
    ) -> tuple[list[Float[Array, ""]], Float[Array, " R"], PyTree, Mapping[str, PyTree]]:
        """(sums, counts, representation, new model state) of one batch; sums one by one.

        Args:
          shared, specific: The parameters that learn, as `partition` splits them.
          model_state: The other collections of the model's variables.
          batch: `{"image", "labels", "present"}`.
          key: For dropout and the like.
          perturbation: Added to the representation, if there is any.
        """
        mutable = _mutable(model_state)
        params = join(shared, specific, self.frozen)
        variables = {"params": _cast(params, self.dtype), **model_state}
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
        distances = self._distances(outputs, features, image, params)
        sums, counts = self._sums_and_counts(outputs, batch, distances)
        return sums, counts, representation, {**model_state, **changed}

    def forward(
        self,
        shared: Flat,
        specific: Flat,
        model_state: Mapping[str, PyTree],
        batch: Mapping[str, Any],
        key: jax.Array,
    ) -> Forward:
        """The same, ready to be pulled back.

        Raises:
          ValueError: `level="features"` where the model marks no representation.
        """
        zeros: PyTree = {}
        if self.level == "features":
            params = join(shared, specific, self.frozen)
            zeros = representation_zeros(
                self.network, params, model_state, batch["image"], self.dtype
            )

        def differentiate(shared, specific, perturbation):
            sums, counts, representation, new = self.look(
                shared, specific, model_state, batch, key, perturbation
            )
            return (sums, representation), (counts, new)

        inputs = shared, specific, zeros
        (sums, _), push, (counts, new) = jax.linearize(differentiate, *inputs, has_aux=True)

        def pull(cotangents, representation=None):
            if representation is None:
                return pull_some(lambda *changes: push(*changes)[0], list(cotangents))
            return pull_some(push, (list(cotangents), representation))

        def pull_rows(start, stop):
            some = lambda *changes: push(*changes)[0][start:stop]
            if stop == start + 1:
                alone = pull_some(some, [jnp.ones(())])
                return jax.tree.map(lambda x: x[None], alone)
            return jax.vmap(lambda row: pull_some(some, list(row)))(jnp.eye(stop - start))

        def pull_some(push, cotangents):
            return Gradients(*jax.linear_transpose(push, *inputs)(cotangents))

        return Forward(jnp.stack(sums), counts, new, pull, pull_rows)

    def _distances(self, outputs, features, image, params):
        """{task: what its teacher adds for each image}."""
        if self.distillation is None:
            return {}
        teachers = [{**own, "params": _cast(own["params"], self.dtype)} for own in self.teachers]
        student = {
            task.name: Seen(outputs[task.name], features.get(task.name)) for task in self.tasks
        }
        seen = self.distillation.look(teachers, image)
        return self.distillation.distances(self.tasks, student, seen, params)

    def _sums_and_counts(self, outputs, batch, distances):
        size = batch["image"].shape[0]
        sample_of = (self.axis.index() * size + jnp.arange(size)) % self.samples
        pairs = []
        for sample in range(self.samples):
            for task in self.tasks:
                present = batch["present"][task.name]
                if self.samples > 1:
                    present = present & (sample_of == sample)
                labelled = outputs[task.name], batch["labels"][task.name], present
                total, count = task.loss(*labelled)
                if task.name in distances:
                    total += (counts_of_each(task, *labelled) * distances[task.name]).sum()
                pairs.append((total, count))
        sums, counts = zip(*pairs, strict=True)
        return [x.astype(jnp.float32) for x in sums], jnp.stack(counts).astype(jnp.float32)


def task_rows(
    forward: Forward, level: Level, pullback: Pullback = "auto"
) -> PyTree[Float[Array, "R ..."]]:
    """A gradient per row, of the *sum* of its losses: nothing is divided by counts yet."""
    count = forward.sums.shape[0]
    wanted = "shared" if level == "parameters" else "representation"
    if isinstance(pullback, int):
        size = pullback
    else:
        size = {"auto": rows_per_pull(count, level), "vmap": count, "loop": 1}[pullback]
    starts = range(0, count, size)
    rows = [getattr(forward.pull_rows(k, min(k + size, count)), wanted) for k in starts]
    return jax.tree.map(lambda *leaves: jnp.concatenate(leaves), *rows)


def rows_per_pull(rows: int, level: Level) -> int:
    """How many rows to pull back at once.

    To the representation, one alone visits its own head only. To the parameters, on CPU one after
    the other is fastest (see `benchmarks/pullback.py`); of many, a few at a time, which is compiled
    sooner. Accelerators are kept busy by all at once.
    """
    if level == "features":
        return 1
    if jax.default_backend() != "cpu":
        return rows
    return 1 if rows <= 16 else 4


def representation_zeros(
    model: nn.Module,
    params: PyTree,
    model_state: Mapping[str, PyTree],
    image: Array,
    dtype: Any = None,
) -> PyTree[Float[Array, "B ..."]]:
    """Zeros like the model's representation of a batch: what perturbs it without changing it.

    Raises:
      ValueError: The model marks no representation.
    """

    def trace(params, image):
        _, collections = model.apply(
            {"params": _cast(params, dtype), **model_state},
            _cast(image, dtype),
            train=True,
            rngs={"dropout": jax.random.key(0)},
            mutable=[PERTURBATIONS, *_mutable(model_state)],
        )
        return collections.get(PERTURBATIONS, {})

    shapes = jax.eval_shape(trace, params, image)
    zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
    if not jax.tree.leaves(zeros):
        raise ValueError(
            "level='features' needs one point that all tasks' losses go through, and this model "
            "marks none (see mtljax.models.mark_representation); use level='parameters'"
        )
    return zeros


def counts_of_each(
    task: Task, output: Any, label: Any, present: Bool[Array, " B"]
) -> Float[Array, " B"]:
    """How many labels of a task (pixels, points, one) each example has."""

    def one(*alone: Any) -> Float[Array, ""]:
        return task.loss(*jax.tree.map(lambda x: x[None], alone))[1]

    return jax.vmap(one)(output, label, present)


def _mutable(model_state: Mapping[str, PyTree]) -> list[str]:
    return [name for name in model_state if name != "constants"]


def _cast(tree: PyTree, dtype: Any) -> PyTree:
    if dtype is None:
        return tree
    return jax.tree.map(
        lambda x: x.astype(dtype) if jnp.issubdtype(jnp.result_type(x), jnp.floating) else x, tree
    )
