"""The train step and the evaluation step: pure functions over one frozen state.

Data's way through a train step:

    batch -> augment -> forward -> losses -> [a gradient per task] -> balancer -> one gradient -> optimizer

There is no device loop and no host call in it. Under `jax.jit` over a mesh the batch is one array on
many devices; under `jax.pmap` or `jax.shard_map` the same function sees its part of the batch, and
`axis_name` tells it to sum over the axis. Both give what one device gives.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int, PyTree

from mtljax.balancing.base import Balancer, Needs, Signals, combine_rows, gramian
from mtljax.gradients import (
    Forward,
    Level,
    Pullback,
    representation_zeros,
    run_forward,
    task_rows,
)
from mtljax.models.partition import PERTURBATIONS, Flat, join, partition, task_of
from mtljax.tasks.base import Task

Batch = Mapping[str, Any]
Heads = Literal["own", "weighted"]


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

    Raises:
      ValueError: The batch lacks a task's labels, or the model its output.
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

    params = variables.pop("params")
    variables.pop(PERTURBATIONS, None)
    shared, specific = partition(params)
    read = shared
    if level == "features":
        read = representation_zeros(model, shared, specific, variables, image)
    zero = lambda: jnp.zeros((), jnp.int32)
    return TrainState(
        step=zero(),
        params=params,
        model_state=variables,
        opt_state=optimizer.init(params),
        balancer_state=balancer.init(len(tasks), read),
        ema=jax.tree.map(jnp.copy, params) if ema else None,
        key=key,
        skipped=zero(),
        skipped_in_row=zero(),
    )


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
) -> Callable[[TrainState, Batch], tuple[TrainState, dict]]:
    """Makes `step(state, batch) -> (state, logs)`: pure, to be jitted, vmapped, pmapped as you like.

    Args:
      model: See `mtljax.models`.
      tasks: T of them, in the order of the Jacobian's rows.
      balancer: One of `BALANCERS`, made.
      optimizer: Any optax transformation, over all parameters.
      level: What the balancer's gradients are taken with respect to: the shared `parameters`
        (exact), or the `features` that the last shared module hands over (about the price of a
        plain step). Balancers that read only losses are the same at both.
      heads: What task-specific parameters receive: the gradient of their `own` loss or of the
        `weighted` one. None: the convention of the balancer's paper.
      axis_name: Of the enclosing `pmap` or `shard_map` (then with `check_vma=False`), whose devices
        each see a part of the batch. None under plain `jit`, also over a mesh.
      microbatches: The batch is worked through in so many parts, to save memory; gradients are
        accumulated per task, before they are balanced, so the result is that of the whole batch.
      ema_decay: Decay of the average of parameters, which warms up from 0.1. Needs a state with `ema`.
      dtype: What the model computes in (`jnp.bfloat16`); parameters, losses and balancing stay in
        float32.
      augment: `(keys [B], batch) -> batch`, with a key of its own for every example.
      pullback: How the Jacobian is taken; see `mtljax.gradients`.

    Returns:
      The step. Its logs: `loss` {task: mean loss}, `weight` {task: weight} unless the balancer
      gives a direction, `grad_norm`, and `skipped`, 1 where the update was not finite (or its
      squared norm overflowed float32) and therefore left out.

    Raises:
      ValueError: `heads="weighted"` for a balancer that gives a direction.
    """
    heads = heads or balancer.heads
    if heads == "weighted" and balancer.needs is Needs.JACOBIAN:
        raise ValueError(
            "heads='weighted' needs weights, but this balancer gives a direction; use heads='own'"
        )
    if microbatches < 1:
        raise ValueError(f"microbatches must be >= 1, not {microbatches}")
    return _TrainStep(
        model=model,
        tasks=tuple(tasks),
        balancer=balancer,
        optimizer=optimizer,
        level="parameters" if balancer.needs is Needs.LOSSES else level,
        heads=heads,
        axis_name=axis_name,
        microbatches=microbatches,
        ema_decay=ema_decay,
        dtype=dtype,
        augment=augment,
        pullback=pullback,
    )


class _Measured(NamedTuple):
    """What one batch says, added up over its microbatches and not yet divided by counts."""

    sums: Float[Array, " T"]
    counts: Float[Array, " T"]
    rows: PyTree[Float[Array, "T ..."]] | None
    """Gradient of each sum with respect to the shared parameters, or to the representation."""
    specific: Flat | None
    """Gradient of all sums together with respect to task-specific parameters."""


class _Balanced(NamedTuple):
    """What the balancer decided: weights, or else a direction."""

    signals: Signals
    scale: Float[Array, " T"]
    """1 / count, which turns a sum of losses into their mean; 0 for an absent task."""
    weights: Float[Array, " T"] | None
    direction: PyTree | None
    state: PyTree


@dataclasses.dataclass(frozen=True)
class _TrainStep:
    """The step that `make_train_step` describes; read `__call__` first, then `gradients`."""

    model: nn.Module
    tasks: tuple[Task, ...]
    balancer: Balancer
    optimizer: optax.GradientTransformation
    level: Level
    heads: Heads
    axis_name: str | None
    microbatches: int
    ema_decay: float | None
    dtype: Any
    augment: Callable[[jax.Array, Batch], Batch] | None
    pullback: Pullback

    def __call__(self, state: TrainState, batch: Batch) -> tuple[TrainState, dict]:
        key = jax.random.fold_in(state.key, state.step)
        augment_key, model_key, balancer_key = jax.random.split(key, 3)
        if self.augment is not None:
            batch = self.augment(self.example_keys(augment_key, batch), batch)

        shared, specific, balanced, model_state = self.gradients(
            state, batch, model_key, balancer_key
        )
        gradient = join(shared, specific)
        norm = optax.tree.norm(gradient)
        updates, opt_state = self.optimizer.update(gradient, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        new = state.replace(
            params=params,
            model_state=model_state,
            opt_state=opt_state,
            balancer_state=self.observe(state, params, balanced, batch, model_key),
            ema=self.average(state, params),
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

    def gradients(
        self, state: TrainState, batch: Batch, model_key: jax.Array, balancer_key: jax.Array
    ) -> tuple[Flat, Flat, _Balanced, PyTree]:
        """(shared gradient, task-specific gradient, what the balancer decided, model state)."""
        if self.microbatches == 1:
            forward = self.forward(state, state.model_state, batch, model_key)
            measured, model_state = self.measure(forward), forward.model_state
        else:
            parts = self.split(batch), jax.random.split(model_key, self.microbatches)
            measured, model_state = self.measure_parts(state, *parts)

        if self.level == "parameters":
            measured = self.total(measured)
        else:  # rows are of examples, and stay with them
            sums, counts = self.total((measured.sums, measured.counts))
            measured = measured._replace(sums=sums, counts=counts)
        balanced = self.balance(state, measured, balancer_key)

        if measured.specific is not None:
            shared, specific = self.weigh_rows(measured, balanced)
        elif self.microbatches == 1:
            shared, specific = self.total(self.pull_back(forward, measured.rows, balanced))
        else:
            shared, specific = self.total(
                self.pull_back_parts(state, *parts, measured.rows, balanced)
            )
        return shared, specific, balanced, model_state

    def forward(
        self, state: TrainState, model_state: PyTree, batch: Batch, key: jax.Array
    ) -> Forward:
        shared, specific = partition(state.params)
        return run_forward(
            self.model,
            self.tasks,
            shared,
            specific,
            model_state,
            batch,
            key,
            level=self.level,
            dtype=self.dtype,
        )

    def measure(self, forward: Forward) -> _Measured:
        rows = specific = None
        if self.balancer.needs is not Needs.LOSSES:
            rows = task_rows(forward, self.level, self.pullback)
            if self.level == "parameters":
                specific = forward.pull(jnp.ones_like(forward.sums)).specific
        return _Measured(forward.sums, forward.counts, rows, specific)

    def balance(self, state: TrainState, measured: _Measured, key: jax.Array) -> _Balanced:
        """Asks the balancer, with what was measured on all devices."""
        present = measured.counts > 0
        scale = jnp.where(present, 1.0 / jnp.where(present, measured.counts, 1.0), 0.0)
        signals = Signals(losses=measured.sums * scale, present=present, step=state.step)
        if self.balancer.needs is not Needs.LOSSES:
            rows = _scale_rows(scale, measured.rows)
            if self.balancer.needs is Needs.JACOBIAN:
                signals = signals._replace(jacobian=self.of_all_devices(rows))
            elif self.level == "parameters":
                signals = signals._replace(gramian=gramian(rows))
            else:
                signals = signals._replace(gramian=self.total(gramian(rows)))
        combined, new = self.balancer.combine(signals, state.balancer_state, key)
        if self.balancer.needs is Needs.JACOBIAN:
            return _Balanced(signals, scale, None, self.of_this_device(combined), new)
        return _Balanced(signals, scale, jnp.where(present, combined, 0.0), None, new)

    def weigh_rows(self, measured: _Measured, balanced: _Balanced) -> tuple[Flat, Flat]:
        """The gradients where the Jacobian of the shared parameters is at hand already."""
        scale, shared = balanced.scale, balanced.direction
        if shared is None:
            shared = combine_rows(balanced.weights * scale, measured.rows)
        if self.heads == "weighted":
            scale = scale * balanced.weights
        scales = {task.name: scale[t] for t, task in enumerate(self.tasks)}
        return shared, {path: scales[task_of(path)] * x for path, x in measured.specific.items()}

    def pull_back(
        self, forward: Forward, rows: PyTree | None, balanced: _Balanced
    ) -> tuple[Flat, Flat]:
        """The gradients by one more pass backwards."""
        scale = balanced.scale
        if balanced.direction is not None:
            # What arrives at the representation becomes the direction instead of the sum of rows;
            # what comes after it still receives the gradient of the sum of losses.
            change = jax.tree.map(
                lambda wanted, scaled: wanted - scaled.sum(0),
                balanced.direction,
                _scale_rows(scale, rows),
            )
            pulled = forward.pull(scale, change)
            return pulled.shared, pulled.specific
        pulled = forward.pull(balanced.weights * scale)
        if self.heads == "weighted":
            return pulled.shared, pulled.specific
        return pulled.shared, forward.pull(scale).specific

    def measure_parts(
        self, state: TrainState, batches: Batch, keys: jax.Array
    ) -> tuple[_Measured, PyTree]:
        """`measure` of every microbatch: sums of all that can be summed, rows of examples joined."""
        stack = self.level == "features"

        def one(model_state, batch, key):
            forward = self.forward(state, model_state, batch, key)
            measured = self.measure(forward)
            rows = measured.rows if stack else None
            return measured._replace(rows=None) if stack else measured, rows, forward.model_state

        def body(carry, part):
            total, model_state = carry
            measured, rows, model_state = one(model_state, *part)
            return (jax.tree.map(jnp.add, total, measured), model_state), rows

        first = jax.tree.map(lambda x: x[0], (batches, keys))
        shapes, _, _ = jax.eval_shape(one, state.model_state, *first)
        zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
        (total, model_state), rows = _scan(body, (zeros, state.model_state), (batches, keys))
        if stack:  # [K, T, B / K, ...] -> [T, B, ...], in the order of the batch
            total = total._replace(
                rows=jax.tree.map(lambda x: _unsplit(jnp.moveaxis(x, 1, 0)), rows)
            )
        return total, model_state

    def pull_back_parts(
        self,
        state: TrainState,
        batches: Batch,
        keys: jax.Array,
        rows: PyTree | None,
        balanced: _Balanced,
    ) -> tuple[Flat, Flat]:
        """`pull_back` of every microbatch, its forward pass done again, added up."""
        if rows is not None:
            rows = jax.tree.map(
                lambda x: jnp.moveaxis(_split(jnp.moveaxis(x, 1, 0), self.microbatches), 2, 1), rows
            )
        direction = self.split(balanced.direction)

        def body(total, part):
            batch, key, rows, direction = part
            forward = self.forward(state, state.model_state, batch, key)
            gradients = self.pull_back(forward, rows, balanced._replace(direction=direction))
            return jax.tree.map(jnp.add, total, gradients), None

        zeros = jax.tree.map(jnp.zeros_like, partition(state.params))
        return _scan(body, zeros, (batches, keys, rows, direction))[0]

    def observe(self, state, params, balanced: _Balanced, batch, key) -> PyTree:
        """Shows the balancer the losses of the same batch after the update, if it wants them."""
        if self.balancer.observe is None:
            return balanced.state
        after = self.forward(state.replace(params=params), state.model_state, batch, key)
        losses = self.total(after.sums) * balanced.scale
        return self.balancer.observe(balanced.signals, losses, balanced.state)

    def average(self, state: TrainState, params: PyTree) -> PyTree:
        if self.ema_decay is None:
            return state.ema
        if state.ema is None:
            raise ValueError("ema_decay needs a state made with create_state(..., ema=True)")
        decay = jnp.minimum(self.ema_decay, (1.0 + state.step) / (10.0 + state.step))
        return optax.incremental_update(params, state.ema, 1 - decay)

    def logs(self, balanced: _Balanced, norm: Array, skip: Array) -> dict:
        names = [task.name for task in self.tasks]
        logs = {"loss": dict(zip(names, balanced.signals.losses, strict=True))}
        if balanced.weights is not None:
            logs["weight"] = dict(zip(names, balanced.weights, strict=True))
        return {**logs, "grad_norm": norm, "skipped": skip}

    # Where the batch is spread over a named axis; without one, all of these change nothing.

    def total(self, tree: PyTree) -> PyTree:
        """The sum over devices."""
        return tree if self.axis_name is None else jax.lax.psum(tree, self.axis_name)

    def of_all_devices(self, rows: PyTree) -> PyTree:
        """Rows of parameters are complete; rows of examples are gathered from all devices."""
        if self.axis_name is None or self.level == "parameters":
            return rows
        return jax.lax.all_gather(rows, self.axis_name, axis=1, tiled=True)

    def of_this_device(self, direction: PyTree) -> PyTree:
        """The part of a direction that belongs to this device's examples."""
        if self.axis_name is None or self.level == "parameters":
            return direction
        index, count = jax.lax.axis_index(self.axis_name), jax.lax.axis_size(self.axis_name)

        def part(x):
            size = x.shape[0] // count
            return jax.lax.dynamic_slice_in_dim(x, index * size, size)

        return jax.tree.map(part, direction)

    def example_keys(self, key: jax.Array, batch: Batch) -> jax.Array:
        """A key per example, the same whichever device it is on."""
        size = batch["image"].shape[0]
        index = jnp.arange(size)
        if self.axis_name is not None:
            index = index + jax.lax.axis_index(self.axis_name) * size
        return jax.vmap(lambda i: jax.random.fold_in(key, i))(index)

    def split(self, tree: PyTree) -> PyTree:
        return jax.tree.map(lambda x: _split(x, self.microbatches), tree)


def _split(x: Array, parts: int) -> Array:
    """[B, ...] -> [K, B / K, ...]; example i goes to part i mod K, so that each has all devices'."""
    if x.shape[0] % parts:
        raise ValueError(f"a batch of {x.shape[0]} cannot be cut into {parts} equal microbatches")
    return x.reshape(x.shape[0] // parts, parts, *x.shape[1:]).swapaxes(0, 1)


def _unsplit(x: Array) -> Array:
    """[T, K, B / K, ...] -> [T, B, ...], undoing `_split` in the axes after the first."""
    x = x.swapaxes(1, 2)
    return x.reshape(x.shape[0], -1, *x.shape[3:])


def _scale_rows(scale: Float[Array, " T"], rows: PyTree) -> PyTree:
    return jax.tree.map(lambda x: jnp.expand_dims(scale, range(1, x.ndim)) * x, rows)


def _scan(body: Callable, carry: PyTree, parts: PyTree) -> tuple[PyTree, PyTree]:
    """`lax.scan`, unrolled on CPU, where a convolution in a loop is many times slower."""
    return jax.lax.scan(body, carry, parts, unroll=jax.default_backend() == "cpu")


def make_eval_step(
    model: nn.Module, tasks: Sequence[Task], *, axis_name: str | None = None
) -> Callable[[TrainState, Batch], dict[str, dict]]:
    """Makes `eval_step(state, batch) -> {task: metric state of this batch}`: pure.

    The states are added up by `mtljax.evaluate.merge`, which makes them exact over any number of
    batches. Averaged parameters are used where the state has them. Padding is marked by `present`
    False for every task.

    Args:
      model: See `mtljax.models`.
      tasks: See `mtljax.tasks`.
      axis_name: Of the enclosing `pmap` or `shard_map`, if any.
    """

    def eval_step(state: TrainState, batch: Batch) -> dict[str, dict]:
        outputs = predict(model, state, batch["image"])
        if axis_name is None:
            return measure(tasks, outputs, batch)
        gather = lambda tree: jax.lax.all_gather(tree, axis_name, axis=0, tiled=True)
        return measure(tasks, gather(outputs), gather(dict(batch, image=())))

    return eval_step


def measure(tasks: Sequence[Task], outputs: Mapping[str, PyTree], batch: Batch) -> dict[str, dict]:
    """{task: {"loss": (sum, count), "metrics": state}} of one batch whose outputs are known."""
    measured = {}
    for task in tasks:
        output, label = outputs[task.name], batch["labels"][task.name]
        present = batch["present"][task.name]
        metrics = task.metrics
        measured[task.name] = {
            "loss": task.loss(output, label, present),
            "metrics": metrics.update(metrics.empty(), output, label, present),
        }
    return measured


def predict(model: nn.Module, state: TrainState, image: Array) -> dict[str, Array]:
    """{task: output} in evaluation mode, in float32, with averaged parameters where there are any."""
    params = state.params if state.ema is None else state.ema
    outputs = model.apply({"params": params, **state.model_state}, image, train=False)
    return jax.tree.map(lambda x: x.astype(jnp.float32), outputs)
