"""The train step and the evaluation step: pure functions over one frozen state.

Data's way through a train step:

    batch -> augment -> losses -> [a gradient per task] -> balancer -> one gradient -> optimizer

There is no device loop and no host call in it. Under `jax.jit` over a mesh the batch is one array
on many devices; under `jax.pmap` or `jax.shard_map` the same function sees its part of the batch,
and `axis_name` tells it to sum over the axis. Both give what one device gives.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, Literal, cast

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, PyTree

from mtljax.balancing.base import Balancer, Needs
from mtljax.models.freezing import divide
from mtljax.models.partition import Flat, join, partition
from mtljax.step.attacks import Attack, attacked
from mtljax.step.axis import Axis
from mtljax.step.balanced_gradient import BalancedGradient, BalancerOutput, Heads, Params
from mtljax.step.distillation import Distillation
from mtljax.step.eval_step import predict
from mtljax.step.objective import Level, Objective, Pullback
from mtljax.step.state import Batch, TrainState
from mtljax.tasks.base import Task


def make_train_step(
    model: nn.Module,
    tasks: Sequence[Task],
    balancer: Balancer,
    optimizer: optax.GradientTransformation,
    *,
    level: Level = "parameters",
    heads: Heads | None = None,
    axis_name: str | None = None,
    microbatches: int = 1,
    ema_decay: float | None = None,
    dtype: Any = None,
    augment: Callable[[jax.Array, Batch], Batch] | None = None,
    pullback: Pullback = "auto",
    jacobian: Literal["rows", "gramian"] = "rows",
    attack: Attack | None = None,
    freeze: Sequence[str] = (),
    freeze_statistics: bool = False,
    distill: Distillation | None = None,
) -> Callable[[TrainState, Batch], tuple[TrainState, dict]]:
    """Makes `step(state, batch) -> (state, logs)`: pure, to be jitted, vmapped or pmapped.

    Args:
      model: See `mtljax.models`.
      tasks: T of them, in the order of the Jacobian's rows.
      balancer: One of `BALANCERS`, made.
      optimizer: Any optax transformation, over all parameters that are not frozen.
      level: What the balancer's gradients are taken with respect to: the shared `parameters`
        (exact), or the last `features` that all losses go through (about the price of a plain
        step). Balancers that read only losses are the same at both.
      heads: What task-specific parameters receive: the gradient of their `own` loss or of the
        `weighted` one. None: the convention of the balancer's paper.
      axis_name: Of the enclosing `pmap` or `shard_map` (then with `check_vma=False`), whose devices
        each see a part of the batch. None under plain `jit`, also over a mesh.
      microbatches: The batch is worked through in so many parts, to save memory; gradients are
        accumulated per task, before they are balanced, so the result is that of the whole batch.
      ema_decay: Decay of the average of parameters, which warms up from 0.1; needs a state made
        with `ema=True`.
      dtype: What the model computes in (`jnp.bfloat16`); parameters, losses and balancing stay in
        float32.
      augment: `(keys [B], batch) -> batch`, with a key of its own for every example.
      pullback: How the Jacobian is taken; see `mtljax.step.objective`.
      jacobian: What is kept of it, for balancers that read the Gramian of parameters: its `rows`
        until they are combined, or only the `gramian`, at the price of one more pass backwards.
      attack: Adversarial training: every batch is attacked, on the losses of all tasks together,
        before the step learns from it. Each of the attack's steps costs about a plain step.
      freeze: Modules and parameters that do not change, as `divide` names them. No gradient is
        taken of them, so stages below all that learns cost no backward pass; neither the optimizer
        nor the balancer sees them.
      freeze_statistics: Batch normalisation works as in evaluation: its statistics do not change.
      distill: Teachers, which add to the losses of tasks; needs a state made with them.

    Returns:
      The step. Its logs: `loss` {task: mean loss}, `weight` {task: weight} unless the balancer
      gives a direction, `grad_norm`, and `skipped`, 1 where the update was not finite (or its
      squared norm overflowed float32) and therefore left out.

    Raises:
      ValueError: A combination that makes no sense: `heads="weighted"` for a balancer that gives a
        direction, `features` for one that remembers gradients, microbatches for one that needs the
        whole batch's Gramian without its rows, or takes a trial step.
    """
    heads = heads or cast(Heads, balancer.heads)
    if heads == "weighted" and not balancer.gives_weights:
        raise ValueError(
            "heads='weighted' needs weights, but this balancer gives a direction; use heads='own'"
        )
    if balancer.needs is Needs.LOSSES:
        level = "parameters"
    if level == "features" and balancer.parameters_only:
        raise ValueError(
            "this balancer remembers gradients from step to step, but those of level='features' "
            "belong to the examples of one batch; use level='parameters'"
        )
    if microbatches < 1:
        raise ValueError(f"microbatches must be >= 1, not {microbatches}")
    apart = balancer.samples > 1 and heads == "weighted"  # a head's rows are not kept by sample
    lean = balancer.needs is Needs.GRAMIAN and (jacobian == "gramian" or apart)
    if jacobian == "gramian" and pullback == "auto":
        # All rows at once, so that each layer's are used up before the next layer's are made.
        pullback = "vmap"
    whole = (lean or balancer.samples > 1) and level == "parameters"
    if microbatches > 1 and (balancer.lookahead or whole):
        raise ValueError(
            "a Gramian of the whole batch, or a trial step, cannot be put together from "
            "microbatches; use microbatches=1"
        )
    axis = Axis(axis_name)
    tasks = tuple(tasks)
    objective = Objective(
        model, tasks, level, balancer.samples, dtype, axis, freeze_statistics, distill
    )
    return _TrainStep(
        gradient=BalancedGradient(
            objective=objective,
            balancer=balancer,
            heads=heads,
            microbatches=microbatches,
            pullback=pullback,
            keep_rows=not lean,
        ),
        optimizer=optimizer,
        ema_decay=ema_decay,
        augment=augment,
        attack=attack,
        freeze=tuple(freeze),
    )


@dataclasses.dataclass(frozen=True)
class _TrainStep:
    """The step that `make_train_step` describes."""

    gradient: BalancedGradient
    optimizer: optax.GradientTransformation
    ema_decay: float | None
    augment: Callable[[jax.Array, Batch], Batch] | None
    attack: Attack | None
    freeze: tuple[str, ...]

    def __call__(self, state: TrainState, batch: Batch) -> tuple[TrainState, dict]:
        key = jax.random.fold_in(state.key, state.step)
        augment_key, model_key, balancer_key = jax.random.split(key, 3)
        if self.augment is not None:
            batch = self.augment(example_keys(augment_key, batch, self.gradient.axis), batch)
        if self.attack is not None:
            batch = self.attacked(self.attack, state, batch, jax.random.fold_in(augment_key, 1))

        learning, frozen = divide(state.params, self.freeze)
        of_learning = self.gradient.given(frozen, state.teachers)
        parts, balanced, model_state = of_learning(
            partition(learning),
            state.model_state,
            state.balancer_state,
            state.step,
            batch,
            model_key,
            balancer_key,
        )
        gradient, before = join(*parts), join(learning)
        norm = optax.tree.norm(gradient)
        updates, opt_state = self.optimizer.update(gradient, state.opt_state, before)
        after = partition(optax.apply_updates(before, updates))
        params = join(*after, frozen)
        new = state.replace(
            params=params,
            model_state=model_state,
            opt_state=opt_state,
            balancer_state=self.observe(of_learning, state, after, balanced, batch, model_key),
            ema=self.average(state, params, frozen),
        )
        finite = jnp.isfinite(norm) & jnp.isfinite(balanced.signals.losses).all()
        new = jax.tree.map(lambda new, old: jnp.where(finite, new, old), new, state)
        skip = (~finite).astype(jnp.int32)
        new = new.replace(
            step=state.step + 1,
            skipped=state.skipped + skip,
            skipped_in_row=(state.skipped_in_row + 1) * skip,
        )
        return new, self.logs(balanced, norm, skip)

    def attacked(self, attack: Attack, state: TrainState, batch: Batch, key: jax.Array) -> Batch:
        """The batch as the attack leaves it, in evaluation mode, so that no statistic moves."""
        objective, axis = self.gradient.objective, self.gradient.axis
        outputs = lambda image: predict(objective.model, state.replace(ema=None), image)
        keys = example_keys(key, batch, axis)
        return attacked(attack, objective.tasks, outputs, batch, keys, axis)

    def observe(
        self,
        gradient: BalancedGradient,
        state: TrainState,
        params: Params,
        balanced: BalancerOutput,
        batch: Batch,
        key: jax.Array,
    ) -> PyTree:
        """Shows the balancer the losses of the same batch after the update, if it wants them."""
        observe = gradient.balancer.observe
        if observe is None:
            return balanced.state
        after = gradient.losses_after(params, state.model_state, batch, key, balanced)
        return observe(balanced.signals, after, balanced.state)

    def average(self, state: TrainState, params: PyTree, frozen: Flat) -> PyTree:
        if self.ema_decay is None:
            return state.ema
        if state.ema is None:
            raise ValueError("ema_decay needs a state made with create_state(..., ema=True)")
        decay = jnp.minimum(self.ema_decay, (1.0 + state.step) / (10.0 + state.step))
        average = optax.incremental_update(params, state.ema, 1 - decay)
        return join(*partition(average), frozen)  # of equal numbers it may be rounded otherwise

    def logs(self, balanced: BalancerOutput, norm: Array, skip: Array) -> dict:
        names = [task.name for task in self.gradient.objective.tasks]
        by_task = lambda rows: rows.reshape(-1, len(names)).sum(0)
        # Means of samples, weighted by their counts, are the mean over the batch.
        losses = by_task(balanced.signals.losses.reshape(-1) * balanced.row_share)
        logs = {"loss": dict(zip(names, losses, strict=True))}
        if balanced.weights is not None:
            logs["weight"] = dict(zip(names, by_task(balanced.weights), strict=True))
        return {**logs, "grad_norm": norm, "skipped": skip}


def example_keys(key: jax.Array, batch: Batch, axis: Axis) -> jax.Array:
    """A key per example, the same whichever device it is on."""
    size = batch["image"].shape[0]
    index = jnp.arange(size) + axis.index() * size
    return jax.vmap(lambda i: jax.random.fold_in(key, i))(index)
