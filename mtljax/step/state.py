"""The train state, and how a fresh one is made."""

from collections.abc import Mapping, Sequence
from typing import Any

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Int, PyTree

from mtljax.balancing.base import Balancer, Needs
from mtljax.models.freezing import split_frozen
from mtljax.models.multitask import without_pooling
from mtljax.models.partition import TRANSIENT_COLLECTIONS, join, partition
from mtljax.step.distillation import Distillation
from mtljax.step.objective import Level, representation_zeros
from mtljax.tasks.base import Task
from mtljax.utils.tree import replaced

Batch = Mapping[str, Any]


class TrainState(flax.struct.PyTreeNode):
    """All that training remembers. Saved, restored, placed on devices and donated as one."""

    step: Int[Array, ""]
    """Steps taken, skipped ones included."""
    params: PyTree
    model_state: PyTree
    """The model's other collections: batch statistics, constants."""
    opt_state: PyTree
    balancer_state: PyTree
    ema: PyTree
    """Exponential moving average of `params`, or None."""
    key: jax.Array
    """Never changes; each step folds its number in."""
    skipped: Int[Array, ""]
    """Updates left out because they were not finite, since the start."""
    skipped_in_row: Int[Array, ""]
    teachers: PyTree = ()
    """Variables of a distillation's teachers. They never change, and checkpoints leave them out."""

    @property
    def variables(self) -> dict[str, PyTree]:
        """What the model is evaluated with: averaged parameters, where there are any."""
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
    """A fresh state.

    Args:
      key: Initialises the parameters and seeds all later randomness.
      model: See `mtljax.models`.
      tasks: At least one.
      balancer: As given to `make_train_step`.
      optimizer: As given to `make_train_step`.
      example_batch: Any batch of the right shapes and types.
      level: As given to `make_train_step`.
      ema: Keep an average of the parameters, for `make_train_step(ema_decay=...)`.
      initial: {collection: variables} to start from instead of fresh ones, all or some of the
        model's; see `mtljax.transfer`.
      freeze: As given to `make_train_step`.
      distill: As given to `make_train_step`.

    Raises:
      ValueError: The batch lacks a task's labels, or the model its output, a variable of `initial`
        or what is frozen; nothing is left to balance; or a teacher does not fit.
    """
    if not tasks:
        raise ValueError("no task: a step needs at least one")
    for part in ("labels", "present"):
        missing = [task.name for task in tasks if task.name not in example_batch[part]]
        if missing:
            raise ValueError(
                f"batch[{part!r}] has no {', '.join(missing)}; it has "
                f"{', '.join(example_batch[part]) or 'nothing'}"
            )
    init_key, key = jax.random.split(key)
    image = example_batch["image"]

    def init(key, image):
        params_key, dropout_key = jax.random.split(key)
        return model.init({"params": params_key, "dropout": dropout_key}, image, train=False)

    variables = dict(jax.jit(init)(init_key, image))
    outputs = jax.eval_shape(lambda v, x: model.apply(v, x, train=False), variables, image)
    missing = [task.name for task in tasks if task.name not in outputs]
    if missing:
        raise ValueError(f"the model gives no output named {', '.join(missing)}")

    for seen in TRANSIENT_COLLECTIONS:
        variables.pop(seen, None)
    if initial is not None:
        variables = replaced(variables, initial)
    if distill is not None:
        model = without_pooling(model)
        adapters = distill.adapters(jax.random.fold_in(init_key, 1), model, variables, image)
        variables["params"] = {**variables["params"], **adapters}
    params = variables.pop("params")
    learning, _ = split_frozen(params, freeze)
    read, _ = partition(learning)
    if freeze and not read and balancer.needs is not Needs.LOSSES:
        raise ValueError(
            f"freeze={tuple(freeze)} leaves no shared parameter whose gradients could be balanced; "
            "take balancer ew, or freeze less"
        )
    if level == "features":
        read = representation_zeros(model, params, variables, image)
    zero = lambda: jnp.zeros((), jnp.int32)
    return TrainState(
        step=zero(),
        params=params,
        model_state=variables,
        opt_state=optimizer.init(join(learning)),
        balancer_state=balancer.init(len(tasks), read),
        ema=jax.tree.map(jnp.copy, params) if ema else None,
        key=key,
        skipped=zero(),
        skipped_in_row=zero(),
        teachers=() if distill is None else distill.variables,
    )
