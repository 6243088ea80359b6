"""One gradient for all tasks, from a batch and a balancer.

batch_signals -> balance -> from_rows      (the Jacobian of the parameters is available)
                         -> from_pullback  (losses, features or a Gramian only: one more pullback)
"""

import dataclasses
from collections.abc import Sequence
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from mtljax.balancing.base import (
    NOT_COMPUTED,
    Balancer,
    Needs,
    Signals,
    WithHeads,
    combine_rows,
    gramian,
)
from mtljax.balancing.rows import scale_rows
from mtljax.models.partition import Flat
from mtljax.step.axis import Axis, any_of_vmap
from mtljax.step.batch_signals import BatchSignals, reciprocal
from mtljax.step.heads import align_heads, scale_heads
from mtljax.step.microbatches import merge_rows, scan, split_batch
from mtljax.step.objective import Forward, Inputs, Level, ModelState, Objective, Params, Pullback
from mtljax.step.perturbed import perturbed_signals
from mtljax.step.state import Batch, StepKeys, TrainState
from mtljax.step.task_gradients import task_gradients
from mtljax.step.trial_step import Lookahead, make_lookahead

Heads = Literal["own", "weighted", "given"]
"""Gradient of the task-specific parameters; see `make_train_step`."""
PERTURBATION_KEY = 2
"""Folded into the balancer's key for random directions, of which `combine` must not know."""


@dataclasses.dataclass(frozen=True)
class GradientOptions:
    """Options of the gradient; for the fields see `make_train_step`."""

    level: Level
    """Level of the gradients that the balancer reads."""
    heads: Heads
    """Gradient of the task-specific parameters."""
    microbatches: int
    """Number of parts of a batch."""
    pullback: Pullback
    """Computation of the Jacobian."""
    keep_rows: bool
    """True to keep the Jacobian, which saves a pullback; False: the Gramian, which saves memory."""


class BalancerOutput(NamedTuple):
    """Signals of a balancer and its weights or direction."""

    signals: Signals
    """Without the Gramian, the Jacobian and the trial step."""
    scale: Float[Array, " R"]
    """1 / count, which turns the sum of a row's losses into their mean; 0 for an absent task."""
    head_scale: Float[Array, " R"]
    """Factors of the gradients of the sums with respect to the task-specific parameters."""
    row_share: Float[Array, " R"]
    """Fraction of the task's count in each row; 1 for one sample."""
    weights: Float[Array, " R"] | None
    """Weight of each row; None for a direction."""
    direction: PyTree | None
    """Gradient for the shared parameters or the representation; None for weights."""
    state: PyTree
    """New state of the balancer."""


@dataclasses.dataclass(frozen=True)
class BalancedGradient:
    """Function from parameters and a batch to one gradient."""

    objective: Objective
    """Losses of the tasks."""
    balancer: Balancer
    """Balancer of the gradients."""
    options: GradientOptions
    """Options of the gradient."""

    def with_constants(self, frozen: Flat, teachers: Sequence[PyTree]) -> "BalancedGradient":
        """See `Objective.with_constants`."""
        objective = self.objective.with_constants(frozen, teachers)
        return dataclasses.replace(self, objective=objective)

    @property
    def axis(self) -> Axis:
        """Axis over which the batch is sharded."""
        return self.objective.axis

    @property
    def of_parameters(self) -> bool:
        """True if the balancer reads gradients of the shared parameters."""
        return self.options.level == "parameters"

    def __call__(
        self, params: Params, state: TrainState, batch: Batch, keys: StepKeys
    ) -> tuple[Params, BalancerOutput, ModelState]:
        """Returns (gradient, output of the balancer, new model state).

        `params` are the trainable parameters of `state`, the state before the step.
        """
        period, between = self.balancer.period, self.balancer.between
        if between is None:
            return self.compute(params, state, batch, keys)
        is_due = any_of_vmap(state.step % period == 0)
        cheap = dataclasses.replace(self, balancer=between)
        return jax.lax.cond(is_due, self.compute, cheap.compute, params, state, batch, keys)

    def compute(
        self, params: Params, state: TrainState, batch: Batch, keys: StepKeys
    ) -> tuple[Params, BalancerOutput, ModelState]:
        """Returns what a call returns, with `combine` of this balancer."""
        inputs = Inputs(state.model_state, batch, keys.model)
        if self.balancer.perturbation is not None:
            key = jax.random.fold_in(keys.balancer, PERTURBATION_KEY)
            point = self.balancer.perturbation
            measured, new_state = perturbed_signals(self.objective, params, inputs, key, point)
        elif self.options.microbatches == 1:
            forward = self.objective.forward(params, inputs)
            measured, new_state = self.batch_signals(forward), forward.model_state
        else:
            measured, new_state = self.microbatch_signals(params, inputs)

        sums, counts = self.axis.psum((measured.sums, measured.counts))
        measured = measured._replace(sums=sums, counts=counts)
        lookahead = None
        if self.balancer.lookahead:
            lookahead = make_lookahead(self.objective, params, inputs, reciprocal(counts))
        balanced = self.balance(measured, state, keys.balancer, lookahead)

        if measured.specific is not None:
            gradient = self.from_rows(measured, balanced)
        elif self.options.microbatches == 1:
            gradient = self.axis.psum(self.from_pullback(forward, measured.rows, balanced))
        else:
            gradient = self.axis.psum(self.from_pullbacks(params, inputs, measured.rows, balanced))
        if self.balancer.alignment is not None:
            assert balanced.weights is not None
            specific = align_heads(
                *(self.objective, params, inputs, gradient[1]),
                weights=balanced.weights * balanced.scale,
                head_scale=balanced.head_scale,
                alignment=self.balancer.alignment,
            )
            gradient = gradient[0], specific
        return gradient, balanced, new_state

    def batch_signals(self, forward: Forward) -> BatchSignals:
        """Returns the signals of one forward pass; rows of parameters are summed over devices."""
        measured = BatchSignals(forward.sums, forward.counts)
        if self.balancer.needs is Needs.LOSSES:
            return measured
        rows = task_gradients(forward, self.options.level, self.options.pullback)
        if not self.of_parameters:
            return measured._replace(rows=rows)
        if not self.options.keep_rows:
            return measured._replace(gramian=gramian(self.axis.psum(rows)))
        specific = forward.pullback(jnp.ones_like(forward.sums)).specific
        rows, specific = self.axis.psum((rows, specific))
        return measured._replace(rows=rows, specific=specific)

    def balance(
        self, measured: BatchSignals, state: TrainState, key: jax.Array, lookahead: Lookahead | None
    ) -> BalancerOutput:
        """Calls the balancer with the signals of all devices."""
        balancer, heads = self.balancer, self.options.heads
        shape = (balancer.samples, -1) if balancer.samples > 1 else (-1,)
        present = measured.counts > 0
        scale = reciprocal(measured.counts)
        task_counts = measured.counts.reshape(balancer.samples, -1).sum(0)
        losses = (measured.sums * scale).reshape(shape)
        signals = Signals(losses, present.reshape(shape), state.step, state.preference)
        if lookahead is not None:
            signals = signals._replace(lookahead=lookahead)
        rows = None if measured.rows is None else scale_rows(measured.rows, scale)
        if balancer.needs is Needs.GRAMIAN:
            if measured.gramian is not None:
                products = scale[:, None] * measured.gramian * scale[None, :]
            elif self.of_parameters:
                products = gramian(rows)
            else:
                products = self.axis.psum(gramian(rows))
            signals = signals._replace(gramian=products.reshape(losses.shape * 2))
        elif balancer.needs is Needs.JACOBIAN:
            jacobian = rows if self.of_parameters else self.axis.all_gather(rows, axis=1)
            signals = signals._replace(jacobian=jacobian)

        combined, new_state = balancer.combine(signals, state.balancer_state, key)
        inverse_task_count = jnp.tile(reciprocal(task_counts), balancer.samples)
        head_scale, row_share = inverse_task_count, measured.counts * inverse_task_count
        of_rows = lambda weights: jnp.where(present, weights.reshape(-1), 0.0)
        if isinstance(combined, WithHeads):
            combined, head_weights = combined
            head_scale = of_rows(head_weights) * scale if heads == "given" else head_scale
        weights = direction = None
        if balancer.gives_weights:
            weights = of_rows(combined)
            head_scale = weights * scale if heads == "weighted" else head_scale
        else:
            direction = combined if self.of_parameters else self.axis.local_shard(combined)
        nothing = dict.fromkeys(("gramian", "jacobian", "lookahead"), NOT_COMPUTED)
        signals = signals._replace(**nothing)
        return BalancerOutput(signals, scale, head_scale, row_share, weights, direction, new_state)

    def from_rows(self, measured: BatchSignals, balanced: BalancerOutput) -> Params:
        """Returns the gradient from the Jacobian of the shared parameters."""
        assert measured.specific is not None
        shared, scale = balanced.direction, balanced.head_scale
        if balanced.weights is not None:
            shared = combine_rows(balanced.weights * balanced.scale, measured.rows)
        assert shared is not None, "neither weights nor a direction"
        return shared, scale_heads(measured.specific, self.objective.tasks, scale)

    def from_pullback(
        self, forward: Forward, rows: PyTree | None, balanced: BalancerOutput
    ) -> Params:
        """Returns the gradient by one more pullback."""
        head_scale = balanced.head_scale
        if balanced.weights is None:
            # The cotangent of the representation becomes the direction, not the sum of the rows;
            # modules after the representation still get the gradient for the heads.
            scaled = scale_rows(rows, head_scale)
            change = jax.tree.map(lambda d, row: d - row.sum(0), balanced.direction, scaled)
            gradients = forward.pullback(head_scale, change)
            return gradients.shared, gradients.specific
        gradients = forward.pullback(balanced.weights * balanced.scale)
        if self.options.heads == "weighted":
            return gradients.shared, gradients.specific
        return gradients.shared, forward.pullback(head_scale).specific

    def microbatch_signals(self, params: Params, inputs: Inputs) -> tuple[BatchSignals, ModelState]:
        """Returns `batch_signals` over all microbatches, and the new model state.

        Sums over examples are added; rows of the representation, one per example, are joined.
        """

        def signals(part: Inputs) -> tuple[BatchSignals, PyTree | None, ModelState]:
            forward = self.objective.forward(params, part)
            measured = self.batch_signals(forward)
            if self.of_parameters:
                return measured, None, forward.model_state
            return measured._replace(rows=None), measured.rows, forward.model_state

        def body(carry: PyTree, part: PyTree) -> tuple[PyTree, PyTree]:
            total, model_state = carry
            measured, rows, new_state = signals(Inputs(model_state, *part))
            return (jax.tree.map(jnp.add, total, measured), new_state), rows

        parts = self.split(inputs)
        first = Inputs(inputs.model_state, *jax.tree.map(lambda x: x[0], parts))
        shapes = jax.eval_shape(lambda part: signals(part)[0], first)
        zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
        (total, model_state), rows = scan(body, (zeros, inputs.model_state), parts)
        if rows is not None:
            total = total._replace(rows=merge_rows(rows))
        return total, model_state

    def split(self, inputs: Inputs) -> tuple[Batch, jax.Array]:
        """Returns batches and keys of the microbatches."""
        count = self.options.microbatches
        return split_batch(inputs.batch, count), jax.random.split(inputs.key, count)

    def from_pullbacks(
        self, params: Params, inputs: Inputs, rows: PyTree | None, balanced: BalancerOutput
    ) -> Params:
        """Returns the sum of `from_pullback` over microbatches; repeats the forward passes."""

        def body(total: Params, part: PyTree) -> tuple[Params, None]:
            batch, key, rows, direction = part
            forward = self.objective.forward(params, Inputs(inputs.model_state, batch, key))
            gradient = self.from_pullback(forward, rows, balanced._replace(direction=direction))
            return jax.tree.map(jnp.add, total, gradient), None

        count = self.options.microbatches
        rows, direction = split_batch(rows, count, axis=1), split_batch(balanced.direction, count)
        zeros = jax.tree.map(jnp.zeros_like, params)
        return scan(body, zeros, (*self.split(inputs), rows, direction))[0]

    def losses_after(
        self, params: Params, inputs: Inputs, balanced: BalancerOutput
    ) -> Float[Array, "..."]:
        """Returns the losses of the same batch at other parameters."""

        def body(total: Array, part: PyTree) -> tuple[Array, None]:
            inputs_of_part = Inputs(inputs.model_state, *part)
            return total + self.objective.losses(params, inputs_of_part), None

        if self.options.microbatches == 1:
            sums = self.objective.losses(params, inputs)
        else:
            sums, _ = scan(body, jnp.zeros_like(balanced.scale), self.split(inputs))
        return (self.axis.psum(sums) * balanced.scale).reshape(balanced.signals.losses.shape)
