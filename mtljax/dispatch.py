"""How steps reach the device: many at once where that pays, one at a time where it does not.

A step of a small network takes microseconds, less than Python needs to ask for it. So where the
data is on the device, a whole chunk of steps is one program with a loop in it, except on CPUs with
convolutions, which are many times slower inside a loop there.
"""

from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int, PyTree

from mtljax.data.pipeline import Order
from mtljax.parallel import Placement
from mtljax.step import TrainState

Step = Callable[[TrainState, Any], tuple[TrainState, PyTree]]
Logs = list[PyTree]
"""Logs still on the device, of one step each, or of a chunk with the steps along the first axis; a
chunk's arrays may be longer than it has steps, as those of a whole chunk are."""


class Resident:
    """Steps over data that is on the device, where each step picks its own examples."""

    def __init__(self, step: Step, data: PyTree, order: Order, placement: Placement, chunk: int):
        """Args: step; data, one batch of all examples, replicated; order; placement; chunk, the
        most steps that are asked for at once.
        """
        self._data, self._order, self._placement, self._chunk = data, order, placement, chunk

        def pick(data: PyTree, rows: Int[Array, " B"]) -> PyTree:
            rows = jax.lax.with_sharding_constraint(rows, placement.batched)
            batch = jax.tree.map(lambda x: jnp.take(x, rows, axis=0), data)
            return jax.lax.with_sharding_constraint(batch, placement.batched)

        def one(state, data, rows, start):
            return step(state, pick(data, rows[state.step - start]))

        self._one = jax.jit(one, donate_argnums=0)

        def many(state, data, rows, start, count):
            def body(i, carry):
                state, logs = carry
                state, new = self._one(state, data, rows, start)
                return state, jax.tree.map(lambda all, x: all.at[i].set(x), logs, new)

            shapes = jax.eval_shape(self._one, state, data, rows, start)[1]
            empty = jax.tree.map(lambda x: jnp.zeros((chunk, *x.shape), x.dtype), shapes)
            return jax.lax.fori_loop(0, count, body, (state, empty))

        self._many = jax.jit(many, donate_argnums=0)
        self.loops: bool | None = None

    def run(self, state: TrainState, start: int, count: int) -> tuple[TrainState, Logs]:
        """Steps start ... start + count - 1."""
        rows = self._order.batches(start, self._chunk)  # always as many: one compiled program
        rows, first = self._placement.replicate((rows, jnp.int32(start)))
        if self.loops is None:
            self.loops = jax.default_backend() != "cpu" or not has_convolution(
                self._one.trace(state, self._data, rows, first).jaxpr
            )
        if self.loops:
            state, logs = self._many(state, self._data, rows, first, count)
            return state, [logs]
        logs = []
        for _ in range(count):
            state, log = self._one(state, self._data, rows, first)
            logs.append(log)
        return state, logs


class Streaming:
    """Steps over batches that come from the host, the next ones on their way to the device."""

    def __init__(self, step: Step, batches: Iterator[PyTree], placement: Placement):
        self._step = jax.jit(step, donate_argnums=0)
        self._batches, self._placement = batches, placement
        self._next: PyTree = None

    def run(self, state: TrainState, start: int, count: int) -> tuple[TrainState, Logs]:
        """`count` more steps; `start` is where the batches are."""
        del start
        logs = []
        for _ in range(count):
            batch = self._fetch() if self._next is None else self._next
            state, log = self._step(state, batch)
            self._next = self._fetch()  # while the device works
            logs.append(log)
        return state, logs

    def _fetch(self) -> PyTree:
        batch = next(self._batches, None)
        return None if batch is None else self._placement.spread(batch)


def has_convolution(jaxpr: Any) -> bool:
    """Whether a convolution is anywhere in a (closed) jaxpr."""
    jaxpr = getattr(jaxpr, "jaxpr", jaxpr)
    for equation in jaxpr.eqns:
        if equation.primitive.name == "conv_general_dilated":
            return True
        for value in equation.params.values():
            for inner in value if isinstance(value, (tuple, list)) else (value,):
                if hasattr(getattr(inner, "jaxpr", inner), "eqns") and has_convolution(inner):
                    return True
    return False
