"""Train step: a pure function of a state and a batch.

    batch -> augmentation -> losses -> [gradient per task] -> balancer -> one gradient -> optimizer

The step contains no device loop and no host call. Under `jax.jit` over a mesh the batch is one
sharded array. Under `jax.pmap` or `jax.shard_map` the step gets a shard of the batch, and
`axis_name` names the axis to sum over. Both give the result of one device.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Literal, NotRequired, TypedDict, cast

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int, PyTree

from mtljax.balancing.base import Balancer, Needs
from mtljax.models.batch_statistics import warmed_up_statistics
from mtljax.models.conditioning import Conditioning
from mtljax.models.freezing import split_frozen
from mtljax.models.partition import Flat, join, partition
from mtljax.parallel import Constraints
from mtljax.step.attacks import Attack, attack_batch
from mtljax.step.axis import Axis
from mtljax.step.balanced_gradient import BalancedGradient, BalancerOutput, GradientOptions, Heads
from mtljax.step.distillation import Distillation
from mtljax.step.eval_step import predict
from mtljax.step.objective import Inputs, Level, Objective, Pullback
from mtljax.step.preferences import at_drawn_preferences, require_prefers
from mtljax.step.state import Batch, TrainState, example_keys, step_keys
from mtljax.tasks.base import Task

Augment = Callable[[jax.Array, Batch], Batch]
"""`(keys [B], batch) -> batch`."""
Jacobian = Literal["rows", "gramian"]
"""Storage of the task gradients; see `make_train_step`."""


class StepLogs(TypedDict):
    """Logs of one step."""

    loss: dict[str, Float[Array, ""]]
    """Mean loss of each task."""
    weight: NotRequired[dict[str, Float[Array, ""]]]
    """Weight of each task; missing if the balancer returns a direction."""
    grad_norm: Float[Array, ""]
    """Norm of the gradient, before clipping."""
    skipped: Int[Array, ""]
    """1 if the update was skipped: it was not finite, or its squared norm overflowed float32."""
    skipped_in_row: Int[Array, ""]
    """Number of consecutive skipped updates up to this step."""


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
    dtype: DTypeLike | None = None,
    augment: Augment | None = None,
    pullback: Pullback = "auto",
    jacobian: Jacobian = "rows",
    attack: Attack | None = None,
    freeze: Sequence[str] = (),
    freeze_statistics: bool = False,
    distill: Distillation | None = None,
    constraints: Constraints = Constraints(),
) -> Callable[[TrainState, Batch], tuple[TrainState, StepLogs]]:
    """Creates `step(state, batch) -> (state, logs)`: pure, to be jitted, vmapped or pmapped.

    Args:
      model: See `mtljax.models`. If it has a `conditioning`, each batch has a preference over tasks
        that is drawn by it, and that the balancer reads too.
      tasks: T tasks, in the order of the rows of the Jacobian.
      balancer: Created by a function of `BALANCERS`.
      optimizer: Optax transformation of all parameters that are not frozen.
      level: Variables of the task gradients: the shared `parameters` (exact), or the shared
        representation, `features` (about the cost of a plain step). No effect for balancers that
        read losses only.
      heads: Gradient of the task-specific parameters: of their `own` loss, or of the `weighted`
        loss. None: by the convention of the balancer's paper (`given`: by its `WithHeads`).
      axis_name: Axis of the enclosing `pmap` or `shard_map` (with `check_vma=False`) over which the
        batch is sharded. None under plain `jit`, also over a mesh.
      microbatches: Number of parts to process one after the other, to save memory. Gradients are
        accumulated per task before balancing, so the result is that of the full batch, except
        with batch normalization, which uses the statistics of each part, and with dropout.
      ema_decay: Decay of the average of parameters, with a warm-up from 0.1; needs a state created
        with `ema=True`.
      dtype: Compute dtype of the model (`jnp.bfloat16`); parameters, losses and balancing stay
        float32.
      augment: `(keys [B], batch) -> batch`, with a key per example.
      pullback: Computation of the Jacobian; see `mtljax.step.objective`.
      jacobian: For balancers that read the Gramian of parameters: keep the `rows` until they are
        combined, or only the `gramian`, which costs one more backward pass.
      attack: Adversarial training: attack each batch on the sum of the task losses before the step.
        Each attack step costs about a plain step.
      freeze: Names of modules and parameters to freeze; see `split_frozen`. Frozen parameters get
        no gradient, and stages below all trainable ones cost no backward pass.
      freeze_statistics: Keep the statistics of batch normalization and use them as in evaluation.
      distill: Teachers, whose distances are added to the losses; needs a state created with them.
      constraints: Placement of sharded parameters under `jit` over a mesh: `Placement.constraints`.

    Raises:
      ValueError: The options contradict each other, see `check_options`, or the balancer does not
        read the preference of a conditioned model.
    """
    options = check_options(balancer, level, heads, microbatches, pullback, jacobian)
    settings = tuple(tasks), options.level, balancer.samples, dtype, Axis(axis_name)
    objective = Objective(model, *settings, freeze_statistics, distill, constraints)
    gradient = BalancedGradient(objective, balancer, options)
    step = _TrainStep(gradient, optimizer, ema_decay, augment, attack, tuple(freeze))
    conditioning: Conditioning | None = getattr(model, "conditioning", None)
    if conditioning is None:
        return step
    require_prefers(balancer)
    return at_drawn_preferences(step, conditioning.draw)


def check_options(
    balancer: Balancer,
    level: Level,
    heads: Heads | None,
    microbatches: int,
    pullback: Pullback,
    jacobian: Jacobian,
) -> GradientOptions:
    """Resolves the options of `make_train_step` for a balancer.

    Raises:
      ValueError: `heads="weighted"` for a balancer that returns a direction, `features` for one
        that needs gradients of parameters, or microbatches for one that needs the Gramian of the
        full batch without its rows, takes a trial step, aligns the heads or perturbs parameters.
    """
    heads = heads or cast(Heads, balancer.heads)
    if heads not in ("own", "weighted", balancer.heads):
        raise ValueError(f"heads must be 'own' or 'weighted' with this balancer, not {heads!r}")
    if heads == "weighted" and not balancer.gives_weights:
        raise ValueError(
            "heads='weighted' needs weights, but this balancer gives a direction; use heads='own'"
        )
    if balancer.needs is Needs.LOSSES:
        level = "parameters"
    if level == "features" and balancer.parameters_only:
        raise ValueError(
            "this balancer needs the gradients of parameters, but those at level='features' belong "
            "to the examples of one batch; use level='parameters'"
        )
    if microbatches < 1:
        raise ValueError(f"microbatches must be >= 1, not {microbatches}")
    if balancer.perturbation is not None and (microbatches > 1 or jacobian == "gramian"):
        raise ValueError(
            "this balancer takes gradients at perturbed parameters, all rows of which are computed "
            "from the entire batch; use microbatches=1 and jacobian='rows'"
        )
    # The gradients of task-specific parameters are summed over samples, so they cannot be weighted.
    no_rows = jacobian == "gramian" or (balancer.samples > 1 and heads != "own")
    keep_rows = not (balancer.needs is Needs.GRAMIAN and no_rows)
    if jacobian == "gramian" and pullback == "auto":
        # All rows at once, so that the rows of a layer are used before those of the next exist.
        pullback = "vmap"
    full_batch = level == "parameters" and (not keep_rows or balancer.samples > 1)
    if microbatches > 1 and (balancer.lookahead or balancer.alignment or full_batch):
        raise ValueError(
            "the Gramian of the full batch, a trial step or an alignment of the heads cannot be "
            "computed from microbatches; use microbatches=1"
        )
    return GradientOptions(level, heads, microbatches, pullback, keep_rows)


@dataclasses.dataclass(frozen=True)
class _TrainStep:
    """See `make_train_step`."""

    gradient: BalancedGradient
    optimizer: optax.GradientTransformation
    ema_decay: float | None
    augment: Augment | None
    attack: Attack | None
    freeze: tuple[str, ...]

    def __call__(self, state: TrainState, batch: Batch) -> tuple[TrainState, StepLogs]:
        keys = step_keys(state)
        batch = self.transform(state, batch, keys.augment)

        trainable, frozen = split_frozen(state.params, self.freeze)
        balanced_gradient = self.gradient.with_constants(frozen, state.teachers)
        parts, microbatches = partition(trainable), self.gradient.options.microbatches
        with warmed_up_statistics(state.step - state.skipped, microbatches=microbatches):
            parts, balanced, model_state = balanced_gradient(parts, state, batch, keys)
        gradient = self.gradient.objective.constraints.shard(join(*parts))
        before = join(trainable)
        norm = optax.tree.norm(gradient)

        updates, opt_state = self.optimizer.update(gradient, state.opt_state, before)
        after = partition(optax.apply_updates(before, updates))
        balancer_state, observe = balanced.state, self.gradient.balancer.observe
        if observe is not None:
            inputs = Inputs(state.model_state, batch, keys.model)
            losses = balanced_gradient.losses_after(after, inputs, balanced)
            balancer_state = observe(balanced.signals, losses, balancer_state)
        params = join(*after, frozen)
        ema = self.average(state, params, frozen)
        new = state.replace(params=params, model_state=model_state, opt_state=opt_state, ema=ema)
        new = new.replace(balancer_state=balancer_state)
        finite = jnp.isfinite(norm) & jnp.isfinite(balanced.signals.losses).all()
        new = jax.tree.map(lambda new, old: jnp.where(finite, new, old), new, state)
        skipped = (~finite).astype(jnp.int32)
        new = new.replace(
            step=state.step + 1,
            skipped=state.skipped + skipped,
            skipped_in_row=(state.skipped_in_row + 1) * skipped,
        )
        return new, self.logs(balanced, norm, skipped, new.skipped_in_row)

    def transform(self, state: TrainState, batch: Batch, key: jax.Array) -> Batch:
        """Returns the batch augmented and attacked; the attack runs in evaluation mode."""
        objective, axis = self.gradient.objective, self.gradient.axis
        if self.augment is not None:
            batch = self.augment(example_keys(key, batch, axis), batch)
        if self.attack is not None:
            outputs = lambda image: predict(objective.model, state.replace(ema=None), image)
            keys = example_keys(jax.random.fold_in(key, 1), batch, axis)
            batch = attack_batch(self.attack, objective.tasks, outputs, batch, keys, axis)
        return batch

    def average(self, state: TrainState, params: PyTree, frozen: Flat) -> PyTree:
        """Returns the new moving average of the parameters."""
        if self.ema_decay is None:
            return state.ema
        if state.ema is None:
            raise ValueError("ema_decay needs a state made with create_state(..., ema=True)")
        decay = jnp.minimum(self.ema_decay, (1.0 + state.step) / (10.0 + state.step))
        average = optax.incremental_update(params, state.ema, 1 - decay)
        return join(*partition(average), frozen)  # the average of equal numbers may round

    def logs(
        self, balanced: BalancerOutput, norm: Array, skipped: Array, in_row: Array
    ) -> StepLogs:
        """Returns the logs of a step."""
        names = [task.name for task in self.gradient.objective.tasks]
        per_task = lambda rows: dict(zip(names, rows.reshape(-1, len(names)).sum(0), strict=True))
        # Means of samples, weighted by their counts, are the mean over the batch.
        logs: StepLogs = {
            "loss": per_task(balanced.signals.losses.reshape(-1) * balanced.row_share),
            "grad_norm": norm,
            "skipped": skipped,
            "skipped_in_row": in_row,
        }
        if balanced.weights is not None:
            logs["weight"] = per_task(balanced.weights)
        return logs
