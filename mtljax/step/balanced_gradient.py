"""One gradient for all tasks: what a batch says, what the balancer makes of it, and what follows.

measure -> balance -> weigh_rows  (the Jacobian of the parameters is at hand: no pass backwards)
                   -> pull_back   (only losses, features or a Gramian were kept: one more pass)
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from mtljax.balancing.base import Ahead, Balancer, Needs, Signals, combine_rows, gramian
from mtljax.models.partition import Flat, task_of
from mtljax.step.axis import Axis
from mtljax.step.objective import Forward, Objective, Pullback, task_rows

Heads = Literal["own", "weighted"]
Params = tuple[Flat, Flat]
"""(shared, task-specific) parameters, or their gradient."""


class BatchSignals(NamedTuple):
    """What one batch says, added up over its microbatches and not yet divided by counts."""

    sums: Float[Array, " R"]
    counts: Float[Array, " R"]
    rows: PyTree[Float[Array, "R ..."]] | None = None
    """Gradient of each sum with respect to the shared parameters, or to the representation."""
    gramian: Float[Array, "R R"] | None = None
    """Instead of rows, where they are not kept."""
    specific: Flat | None = None
    """Gradient of all sums together with respect to task-specific parameters, beside rows."""


class BalancerOutput(NamedTuple):
    """What the balancer decided: weights, or else a direction."""

    signals: Signals
    scale: Float[Array, " R"]
    """1 / count, which turns a sum of losses into their mean; 0 for an absent task."""
    inverse_task_count: Float[Array, " R"]
    """1 / count over all samples together."""
    row_share: Float[Array, " R"]
    """Which part of its task's count a row has; 1 where there is one sample."""
    weights: Float[Array, " R"] | None
    direction: PyTree | None
    state: PyTree


@dataclasses.dataclass(frozen=True)
class BalancedGradient:
    """How a batch becomes one gradient; read `__call__` first.

    Attributes:
      objective: The losses.
      balancer: See `mtljax.balancing`.
      heads: What task-specific parameters receive.
      microbatches: Parts that the batch is worked through in.
      pullback: How the Jacobian is taken.
      keep_rows: Whether the Jacobian of the parameters is kept until the balancer has decided,
        which saves a pass backwards, or only its Gramian, which saves memory.
    """

    objective: Objective
    balancer: Balancer
    heads: Heads
    microbatches: int
    pullback: Pullback
    keep_rows: bool

    def given(self, frozen: Flat, teachers: Sequence[PyTree]) -> "BalancedGradient":
        """The same, with what the losses depend on and does not learn."""
        return dataclasses.replace(self, objective=self.objective.given(frozen, teachers))

    @property
    def axis(self) -> Axis:
        return self.objective.axis

    @property
    def of_parameters(self) -> bool:
        return self.objective.level == "parameters"

    def __call__(
        self,
        params: Params,
        model_state: PyTree,
        balancer_state: PyTree,
        step: Array,
        batch: Mapping[str, Any],
        model_key: jax.Array,
        balancer_key: jax.Array,
    ) -> tuple[Params, BalancerOutput, PyTree]:
        """(gradient, what the balancer decided, new model state)."""
        if self.microbatches == 1:
            forward = self.objective.forward(*params, model_state, batch, model_key)
            measured, new_state = self.measure(forward), forward.model_state
        else:
            parts = self.split(batch), jax.random.split(model_key, self.microbatches)
            measured, new_state = self.measure_parts(params, model_state, *parts)

        sums, counts = self.axis.total((measured.sums, measured.counts))
        measured = measured._replace(sums=sums, counts=counts)
        lookahead = None
        if self.balancer.lookahead:
            lookahead = self.lookahead(params, model_state, batch, model_key, counts)
        balanced = self.balance(measured, balancer_state, step, balancer_key, lookahead)

        if measured.specific is not None:
            gradient = self.weigh_rows(measured, balanced)
        elif self.microbatches == 1:
            gradient = self.axis.total(self.pull_back(forward, measured.rows, balanced))
        else:
            gradient = self.axis.total(
                self.pull_back_parts(params, model_state, *parts, measured.rows, balanced)
            )
        return gradient, balanced, new_state

    def measure(self, forward: Forward) -> BatchSignals:
        """What the balancer needs of one forward pass; rows of parameters summed over devices."""
        measured = BatchSignals(forward.sums, forward.counts)
        if self.balancer.needs is Needs.LOSSES:
            return measured
        lean = self.of_parameters and not self.keep_rows
        rows = task_rows(forward, self.objective.level, self.pullback)
        if not self.of_parameters:
            return measured._replace(rows=rows)
        if lean:
            return measured._replace(gramian=gramian(self.axis.total(rows)))
        specific = forward.pull(jnp.ones_like(forward.sums)).specific
        rows, specific = self.axis.total((rows, specific))
        return measured._replace(rows=rows, specific=specific)

    def balance(
        self,
        measured: BatchSignals,
        balancer_state: PyTree,
        step: Array,
        key: jax.Array,
        lookahead: Callable | None,
    ) -> BalancerOutput:
        """Asks the balancer, with what was measured on all devices."""
        balancer = self.balancer
        shape = (balancer.samples, -1) if balancer.samples > 1 else (-1,)
        present = measured.counts > 0
        scale = _reciprocal(measured.counts)
        together = measured.counts.reshape(balancer.samples, -1).sum(0)
        signals = Signals(
            losses=(measured.sums * scale).reshape(shape),
            present=present.reshape(shape),
            step=step,
            lookahead=lookahead,
        )
        rows = None if measured.rows is None else scale_rows(scale, measured.rows)
        if balancer.needs is Needs.GRAMIAN:
            gram = measured.gramian
            if gram is not None:
                gram = scale[:, None] * gram * scale[None, :]
            elif self.of_parameters:
                gram = gramian(rows)
            else:
                gram = self.axis.total(gramian(rows))
            signals = signals._replace(gramian=gram.reshape(signals.losses.shape * 2))
        elif balancer.needs is Needs.JACOBIAN:
            whole = rows if self.of_parameters else self.axis.gather(rows, axis=1)
            signals = signals._replace(jacobian=whole)

        combined, new = balancer.combine(signals, balancer_state, key)
        weights = direction = None
        if balancer.gives_weights:
            weights = jnp.where(present, combined.reshape(-1), 0.0)
        else:
            direction = combined if self.of_parameters else self.axis.own_part(combined)
        inverse_task_count = jnp.tile(_reciprocal(together), balancer.samples)
        row_share = measured.counts * inverse_task_count
        return BalancerOutput(
            signals, scale, inverse_task_count, row_share, weights, direction, new
        )

    def weigh_rows(self, measured: BatchSignals, balanced: BalancerOutput) -> Params:
        """The gradient where the Jacobian of the shared parameters is at hand already."""
        assert measured.specific is not None
        shared, scale = balanced.direction, balanced.inverse_task_count
        if balanced.weights is not None:
            shared = combine_rows(balanced.weights * balanced.scale, measured.rows)
            scale = scale * balanced.weights if self.heads == "weighted" else scale
        assert shared is not None, "neither weights nor a direction"
        scales: dict[str | None, Array] = {
            task.name: scale[t] for t, task in enumerate(self.objective.tasks)
        }
        return shared, {path: scales[task_of(path)] * x for path, x in measured.specific.items()}

    def pull_back(self, forward: Forward, rows: PyTree | None, balanced: BalancerOutput) -> Params:
        """The gradient by one more pass backwards."""
        own = balanced.inverse_task_count
        if balanced.weights is None:
            # What arrives at the representation becomes the direction instead of the sum of rows;
            # what comes after it still receives the gradient of the sum of losses.
            change = jax.tree.map(
                lambda wanted, scaled: wanted - scaled.sum(0),
                balanced.direction,
                scale_rows(own, rows),
            )
            pulled = forward.pull(own, change)
            return pulled.shared, pulled.specific
        pulled = forward.pull(balanced.weights * balanced.scale)
        if self.heads == "weighted":
            return pulled.shared, pulled.specific
        return pulled.shared, forward.pull(own).specific

    def measure_parts(
        self, params: Params, model_state: PyTree, batches: Any, keys: jax.Array
    ) -> tuple[BatchSignals, PyTree]:
        """`measure` of every microbatch: what can be summed is, rows of examples are joined."""

        def one(model_state, batch, key):
            forward = self.objective.forward(*params, model_state, batch, key)
            measured = self.measure(forward)
            rows = None if self.of_parameters else measured.rows
            return measured if self.of_parameters else measured._replace(rows=None), rows, forward

        def body(carry, part):
            total, model_state = carry
            measured, rows, forward = one(model_state, *part)
            return (jax.tree.map(jnp.add, total, measured), forward.model_state), rows

        first = jax.tree.map(lambda x: x[0], (batches, keys))
        shapes = jax.eval_shape(lambda *args: one(*args)[0], model_state, *first)
        zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
        (total, model_state), rows = _scan(body, (zeros, model_state), (batches, keys))
        if rows is not None:  # [K, R, B / K, ...] -> [R, B, ...], in the order of the batch
            rows = jax.tree.map(lambda x: jax.vmap(_unsplit, 1, 0)(x), rows)
            total = total._replace(rows=rows)
        return total, model_state

    def pull_back_parts(
        self,
        params: Params,
        model_state: PyTree,
        batches: Any,
        keys: jax.Array,
        rows: PyTree | None,
        balanced: BalancerOutput,
    ) -> Params:
        """`pull_back` of every microbatch, its forward pass done again, added up."""
        split = lambda x: _split(x, self.microbatches)
        rows = jax.tree.map(lambda x: jax.vmap(split, 0, 1)(x), rows)

        def body(total, part):
            batch, key, rows, direction = part
            forward = self.objective.forward(*params, model_state, batch, key)
            gradient = self.pull_back(forward, rows, balanced._replace(direction=direction))
            return jax.tree.map(jnp.add, total, gradient), None

        parts = (batches, keys, rows, self.split(balanced.direction))
        return _scan(body, jax.tree.map(jnp.zeros_like, params), parts)[0]

    def lookahead(
        self,
        params: Params,
        model_state: PyTree,
        batch: Mapping[str, Any],
        key: jax.Array,
        counts: Float[Array, " R"],
    ) -> Callable[[Float[Array, " T"], float, int], Ahead]:
        """What `Signals.lookahead` describes."""
        scale, num_tasks = _reciprocal(counts), len(self.objective.tasks)
        total = self.axis.total

        def local(params: Params) -> Float[Array, " R"]:
            """This device's part of the mean losses."""
            return self.objective.losses(*params, model_state, batch, key) * scale

        def gradient(params: Params, weights: Float[Array, " T"], sample: int) -> Params:
            row = jnp.zeros_like(scale).at[sample * num_tasks + jnp.arange(num_tasks)].set(weights)
            return total(jax.grad(lambda p: row @ local(p))(params))

        def look(weights: Float[Array, " T"], step_size: float, steps: int) -> Ahead:
            there = params
            for _ in range(steps):
                change = gradient(there, weights, 0)
                there = jax.tree.map(lambda p, g: p - step_size * g, there, change)

            def products(coefficients: Float[Array, " T"]) -> Float[Array, " T"]:
                direction = gradient(there, coefficients, 1)
                return total(jax.jvp(local, (params,), (direction,))[1])[:num_tasks]

            return Ahead(total(local(there)).reshape(-1, num_tasks), products)

        return look

    def losses_after(
        self,
        params: Params,
        model_state: PyTree,
        batch: Mapping[str, Any],
        key: jax.Array,
        balanced: BalancerOutput,
    ) -> Float[Array, "..."]:
        """The losses of the same batch at other parameters; nothing else is updated."""
        if self.microbatches == 1:
            sums = self.objective.losses(*params, model_state, batch, key)
        else:
            parts = self.split(batch), jax.random.split(key, self.microbatches)
            body = lambda total, part: (
                total + self.objective.losses(*params, model_state, *part),
                None,
            )
            sums, _ = _scan(body, jnp.zeros_like(balanced.scale), parts)
        return (self.axis.total(sums) * balanced.scale).reshape(balanced.signals.losses.shape)

    def split(self, tree: PyTree) -> PyTree:
        return jax.tree.map(lambda x: _split(x, self.microbatches), tree)


def scale_rows(scale: Float[Array, " R"], rows: PyTree) -> PyTree:
    """Each row times its number."""
    return jax.tree.map(lambda x: jnp.expand_dims(scale, range(1, x.ndim)) * x, rows)


def _reciprocal(counts: Array) -> Array:
    return jnp.where(counts > 0, 1.0 / jnp.where(counts > 0, counts, 1.0), 0.0)


def _split(x: Array, parts: int) -> Array:
    """[B, ...] -> [K, B / K, ...]; example i goes to part i mod K, so each has all devices'."""
    if x.shape[0] % parts:
        raise ValueError(f"a batch of {x.shape[0]} cannot be cut into {parts} equal microbatches")
    return x.reshape(x.shape[0] // parts, parts, *x.shape[1:]).swapaxes(0, 1)


def _unsplit(x: Array) -> Array:
    """Undoes `_split`."""
    return x.swapaxes(0, 1).reshape(-1, *x.shape[2:])


def _scan(body: Callable, carry: PyTree, parts: PyTree) -> tuple[PyTree, PyTree]:
    """`lax.scan`, unrolled on CPU, where a convolution in a loop is many times slower."""
    return jax.lax.scan(body, carry, parts, unroll=jax.default_backend() == "cpu")
