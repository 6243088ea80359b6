"""Train state, its initialization, and the random keys of a step."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
import optax
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Int, PyTree

from mtljax.balancing.base import Balancer, Needs
from mtljax.models.conditioning import PREFERENCE
from mtljax.models.freezing import split_frozen
from mtljax.models.multitask import without_pooling
from mtljax.models.partition import TRANSIENT_COLLECTIONS, join, partition
from mtljax.step.axis import Axis
from mtljax.step.distillation import Distillation
from mtljax.step.objective import Batch, Level, Objective
from mtljax.step.ownership import check_ownership
from mtljax.tasks.base import Task
from mtljax.utils.tree import flatten, num_examples, replaced


class TrainState(flax.struct.PyTreeNode):
    """Training state: parameters, optimizer, balancer, EMA and random key, as one pytree."""

    step: Int[Array, ""]
    """Number of steps taken, including skipped updates."""
    params: PyTree
    """Parameters of the model."""
    model_state: PyTree
    """Other collections of the model: batch statistics, constants."""
    opt_state: PyTree
    """State of the optimizer."""
    balancer_state: PyTree
    """State of the balancer."""
    ema: PyTree
    """Exponential moving average of `params`, or None."""
    key: jax.Array
    """Constant; each step folds in its number."""
    skipped: Int[Array, ""]
    """Number of updates that were not finite and therefore skipped."""
    skipped_in_row: Int[Array, ""]
    """Number of consecutive skipped updates up to now."""
    teachers: PyTree = ()
    """Variables of a distillation's teachers; constant and not part of checkpoints."""

    @property
    def preference(self) -> Float[Array, " T"] | None:
        """Preference over tasks of a conditioned model; None for other models."""
        return self.model_state.get("constants", {}).get(PREFERENCE)

    def with_preference(self, preference: Float[ArrayLike, " T"]) -> "TrainState":
        """State of a conditioned model with another preference over tasks, which sums to 1.

        States that differ in their preferences only can be evaluated by one compiled program.
        """
        constants = {**self.model_state["constants"], PREFERENCE: preference}
        return self.replace(model_state={**self.model_state, "constants": constants})

    @property
    def variables(self) -> dict[str, PyTree]:
        """Variables for evaluation, with the averaged parameters if there are any."""
        params = self.params if self.ema is None else self.ema
        return {"params": params, **self.model_state}


def create_state(
    key: jax.Array,
    model: nn.Module,
    tasks: Sequence[Task],
    balancer: Balancer,
    optimizer: optax.GradientTransformation,
    example_batch: Batch,
    *,
    level: Level = "parameters",
    ema: bool = False,
    initial: Mapping[str, PyTree] | None = None,
    freeze: Sequence[str] = (),
    distill: Distillation | None = None,
) -> TrainState:
    """Creates the state of step 0.

    Args:
      key: Key for the initial parameters and all later randomness.
      model, tasks, balancer, optimizer, level, freeze, distill: As in `make_train_step`.
      example_batch: Any batch of the right shapes and types.
      ema: Keep an average of the parameters, for `make_train_step(ema_decay=...)`.
      initial: {collection: variables} that replace initial variables of the model, all or some of
        them; see `mtljax.transfer`.

    Raises:
      ValueError: The batch lacks labels or the model an output of a task; a task is not resolved;
        a module `task_<name>` is of no task, or another task depends on it; a variable of `initial`
        or a name in `freeze` is unknown; no parameter is balanced; or a teacher does not fit.
    """
    _check_batch(tasks, example_batch)
    init_key, key = jax.random.split(key)
    image = example_batch["image"]
    variables = _init_variables(init_key, model, image)
    check_ownership(model, tasks, variables, image)
    if initial is not None:
        variables = replaced(variables, initial)
    if distill is not None:
        adapter_key = jax.random.fold_in(init_key, 1)
        adapters = distill.init_adapters(adapter_key, without_pooling(model), variables, image)
        variables["params"] = {**variables["params"], **adapters}
    params = variables.pop("params")
    trainable, _ = split_frozen(params, freeze)
    balanced, _ = partition(trainable)
    if freeze and not balanced and balancer.needs is not Needs.LOSSES:
        raise ValueError(
            f"freeze={tuple(freeze)} leaves no shared parameter whose gradients could be balanced; "
            "use balancer ew, or freeze less"
        )
    if level == "features" or balancer.alignment is not None:
        objective = Objective(model, tuple(tasks), "features", distillation=distill)
        representation = objective.representation_zeros(params, variables, image)
        balanced = representation if level == "features" else balanced
    zero = lambda: jnp.zeros((), jnp.int32)
    return TrainState(
        step=zero(),
        params=params,
        model_state=variables,
        opt_state=optimizer.init(join(trainable)),
        balancer_state=balancer.init(len(tasks), balanced),
        ema=jax.tree.map(jnp.copy, params) if ema else None,
        key=key,
        skipped=zero(),
        skipped_in_row=zero(),
        teachers=() if distill is None else distill.variables,
    )


def _check_batch(tasks: Sequence[Task], batch: Batch) -> None:
    if not tasks:
        raise ValueError("no task: a step needs at least one")
    for task in tasks:
        if not getattr(task, "is_resolved", True):
            raise ValueError(
                f"task {task.name!r} has fields that are derived from the training labels; give "
                "them, or call task.resolve(statistics) first"
            )
    for part in ("labels", "present"):
        missing = [task.name for task in tasks if task.name not in batch[part]]
        if missing:
            names = ", ".join(batch[part]) or "nothing"
            raise ValueError(f"batch[{part!r}] has no {', '.join(missing)}; it has {names}")
    sizes = {path: (*jnp.shape(leaf), 0)[0] for path, leaf in flatten(dict(batch)).items()}
    if len(set(sizes.values())) > 1:
        lengths = ", ".join(f"{path} {size}" for path, size in sizes.items())
        raise ValueError(f"the arrays of a batch have different lengths: {lengths}")


def _init_variables(key: jax.Array, model: nn.Module, image: PyTree) -> dict[str, PyTree]:
    def init(key: jax.Array, image: PyTree) -> PyTree:
        params_key, dropout_key = jax.random.split(key)
        return model.init({"params": params_key, "dropout": dropout_key}, image, train=False)

    variables = dict(jax.jit(init)(key, image))
    return {name: x for name, x in variables.items() if name not in TRANSIENT_COLLECTIONS}


class StepKeys(NamedTuple):
    """Keys of one train step."""

    augment: jax.Array
    """For augmentation and attack."""
    model: jax.Array
    """For dropout."""
    balancer: jax.Array
    """For the balancer."""


def step_keys(state: TrainState) -> StepKeys:
    """Returns the keys of the step that starts from `state`."""
    return StepKeys(*jax.random.split(jax.random.fold_in(state.key, state.step), 3))


def example_keys(key: jax.Array, batch: Batch, axis: Axis) -> jax.Array:
    """Returns a key per example, [B], independent of how the batch is sharded."""
    size = num_examples(batch["image"])
    index = jnp.arange(size) + axis.index() * size
    return jax.vmap(lambda i: jax.random.fold_in(key, i))(index)
