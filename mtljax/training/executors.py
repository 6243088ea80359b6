"""How steps reach the device: many at once where that pays, one at a time where it does not.

A step of a small network takes microseconds, less than Python needs to ask for it. So where the
data is on the device, a whole chunk of steps is one program with a loop in it, except on CPUs with
convolutions, which are many times slower inside a loop there.
"""

import functools
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int, PyTree

from mtljax.compilation import compiler_options
from mtljax.data.pipeline import Order
from mtljax.parallel import Placement
from mtljax.step.state import TrainState

Step = Callable[[TrainState, Any], tuple[TrainState, PyTree]]


class Logs:
    """The logs of some steps, on the device until somebody reads them."""

    def __init__(self, parts: list[PyTree], count: int):
        """Args: parts, of one step each, or of a chunk with the steps along the first axis, which
        may be longer than it has steps, as those of a whole chunk are; count, the steps.
        """
        self._parts, self._count = parts, count

    @functools.cached_property
    def values(self) -> PyTree[np.ndarray]:
        """NumPy arrays with the steps along the first axis; waits for the device."""
        join = lambda *x: np.concatenate([np.atleast_1d(v) for v in x])[: self._count]
        return jax.tree.map(join, *jax.device_get(self._parts))


class DeviceDataProgram:
    """Steps over data that is on the device, where each step picks its own examples.

    One program serves any seed. With `together`, states and rows have an axis of runs before all
    others, and the runs are trained side by side.
    """

    def __init__(
        self, step: Step, data: PyTree, placement: Placement, chunk: int, *, together: bool = False
    ):
        """Args: step; data, one batch of all examples, replicated; placement; chunk, the most steps
        that are asked for at once; together, whether several runs share the program.
        """
        self.data, self.placement, self.chunk, self.together = data, placement, chunk, together

        def pick(data: PyTree, rows: Int[Array, " B"]) -> PyTree:
            spread = lambda x: x
            if not together:  # else the runs are what is spread
                spread = lambda x: jax.lax.with_sharding_constraint(x, placement.batched)
            return spread(jax.tree.map(lambda x: jnp.take(x, spread(rows), axis=0), data))

        def one_run(state, data, rows):
            return step(state, pick(data, rows))

        over_runs = jax.vmap(one_run, in_axes=(0, None, 0)) if together else one_run

        def one(state, data, rows, start):
            number = state.step[0] if together else state.step
            return over_runs(state, data, rows[number - start])

        def many(state, data, rows, start, count):
            def body(i, carry):
                state, logs = carry
                state, new = one(state, data, rows, start)
                return state, jax.tree.map(lambda all, x: all.at[i].set(x), logs, new)

            shapes = jax.eval_shape(one, state, data, rows, start)[1]
            empty = jax.tree.map(lambda x: jnp.zeros((chunk, *x.shape), x.dtype), shapes)
            return jax.lax.fori_loop(0, count, body, (state, empty))

        places = (placement.batched if together else placement.replicated), None
        options = compiler_options()
        settings: dict[str, Any] = {
            "donate_argnums": 0,
            "out_shardings": places,
            "compiler_options": options,
        }
        self._one = jax.jit(one, **settings)
        self._many = jax.jit(many, **settings)
        self._pick = jax.jit(
            jax.vmap(pick, in_axes=(None, 0)) if together else pick, compiler_options=options
        )
        self._compiled: Any = None
        self.loops: bool | None = None
        self.cost: dict[str, float] = {}

    def run(
        self, state: TrainState, rows: Int[np.ndarray, "chunk *S B"], start: int, count: int
    ) -> tuple[TrainState, Logs]:
        """Steps start ... start + count - 1, whose examples are the first `count` of `rows`."""
        rows, first = self.placement.replicate((rows, np.int32(start)))
        arguments = self.data, rows, first
        if self._compiled is None:
            self._compile(state, *arguments)
        if self.loops:
            state, logs = self._compiled(state, *arguments, np.int32(count))
            self.placement.sync_on_virtual_cpus(logs)
            return state, Logs([logs], count)
        parts = []
        for _ in range(count):
            state, log = self._compiled(state, *arguments)
            self.placement.sync_on_virtual_cpus(log)
            parts.append(jax.tree.map(lambda x: x[None], log) if self.together else log)
        return state, Logs(parts, count)

    def batch(self, rows: Int[np.ndarray, "*S B"]) -> PyTree:
        """The examples at `rows`."""
        return self._pick(self.data, self.placement.replicate(rows))

    def _compile(self, *arguments: Any) -> None:
        began = time.perf_counter()
        traced = self._one.trace(*arguments)
        self.loops = jax.default_backend() != "cpu" or not has_convolution(traced.jaxpr)
        if self.loops:
            traced = self._many.trace(*arguments, np.int32(0))
        self._compiled = traced.lower().compile()
        self.cost = cost(self._compiled, time.perf_counter() - began)


class DeviceDataExecutor:
    """Takes the steps of runs of certain seeds over data that is on the device."""

    def __init__(self, program: DeviceDataProgram, orders: Sequence[Order]):
        """Args: program; orders, of each run."""
        self._program, self._orders = program, orders

    @property
    def cost(self) -> dict[str, float]:
        return self._program.cost

    @property
    def loops(self) -> bool | None:
        """Whether the steps of a chunk are a loop in one program; known from the first run on."""
        return self._program.loops

    def run(self, state: TrainState, start: int, count: int) -> tuple[TrainState, Logs]:
        """Steps start ... start + count - 1."""
        # Always as many rows: one compiled program.
        return self._program.run(state, self._rows(start, self._program.chunk), start, count)

    def batch(self, start: int) -> PyTree:
        """The batch of the step that is next, `start`."""
        return self._program.batch(self._rows(start, 1)[0])

    def _rows(self, start: int, count: int) -> Int[np.ndarray, "count *S B"]:
        rows = [order.batches(start, count) for order in self._orders]
        return np.stack(rows, 1) if self._program.together else rows[0]


class HostDataProgram:
    """The step alone, compiled at its first batch."""

    def __init__(self, step: Step, placement: Placement):
        self.placement = placement
        self._step = jax.jit(
            step,
            donate_argnums=0,
            out_shardings=(placement.replicated, None),
            compiler_options=compiler_options(),
        )
        self._compiled: Any = None
        self.cost: dict[str, float] = {}

    def __call__(self, state: TrainState, batch: PyTree) -> tuple[TrainState, PyTree]:
        if self._compiled is None:
            began = time.perf_counter()
            self._compiled = self._step.lower(state, batch).compile()
            self.cost = cost(self._compiled, time.perf_counter() - began)
        return self._compiled(state, batch)


class HostDataExecutor:
    """Steps over batches that come from the host, the next ones on their way to the device."""

    def __init__(self, program: HostDataProgram, batches: Iterator[PyTree]):
        self._program, self._batches = program, batches
        self._next: PyTree = None

    @property
    def cost(self) -> dict[str, float]:
        return self._program.cost

    def run(self, state: TrainState, start: int, count: int) -> tuple[TrainState, Logs]:
        """`count` more steps; `start` is where the batches are."""
        parts = []
        for _ in range(count):
            state, log = self._program(state, self.batch(start))
            self._next = self._fetch()  # while the device works
            self._program.placement.sync_on_virtual_cpus(log)
            parts.append(log)
        return state, Logs(parts, count)

    def batch(self, start: int) -> PyTree:
        """The batch of the step that is next."""
        del start
        if self._next is None:
            self._next = self._fetch()
        return self._next

    def _fetch(self) -> PyTree:
        batch = next(self._batches, None)
        return None if batch is None else self._program.placement.spread(batch)


def cost(compiled: Any, seconds: float) -> dict[str, float]:
    """What a compiled step costs beside its time: the seconds until it was compiled, and the most
    memory that it needs at once, in bytes, the data on the device included.
    """
    memory = compiled.memory_analysis()
    found = {"compile_seconds": seconds}
    if memory is not None:
        kept = memory.argument_size_in_bytes + memory.output_size_in_bytes
        found["memory_bytes"] = kept - memory.alias_size_in_bytes + memory.temp_size_in_bytes
    return found


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
