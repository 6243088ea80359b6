"""Executors of train steps: over data on the device, or over batches from the host.

A step of a small network takes less time than its dispatch from Python. Where the data is on the
device, a chunk of steps is therefore one program with a loop in it, except for `nn.Conv` in a
user's model on CPU, which is many times slower inside a loop; see `mtljax.models.convolution`.
"""

import functools
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int, PyTree

from mtljax.compilation import Use, compiler_options
from mtljax.data.pipeline import BatchSampler
from mtljax.models.convolution import CONVOLUTIONS, SLOW_IN_LOOPS
from mtljax.parallel import Placement
from mtljax.step.state import TrainState
from mtljax.training.pace import Pace, Part
from mtljax.training.stopping import StopSignal
from mtljax.utils.peers import mark
from mtljax.utils.terminal import phase

StepResult = tuple[TrainState, PyTree]
"""State after a step, and its logs."""
Step = Callable[[TrainState, Any], StepResult]
"""Function of a state and data that takes a step."""
Rows = Int[Array, "chunk *S B"]
"""Indices of the examples of each step of a chunk."""
Index = Int[Array, ""]
"""Number of a step."""


class Cost(NamedTuple):
    """Compilation time and memory of a step; None if unknown."""

    compile_seconds: float | None = None
    """Compilation time."""
    memory_bytes: int | None = None
    """Peak memory of the program, data on the device included."""


class Logs:
    """Logs of consecutive steps, left on the device until they are read."""

    def __init__(self, parts: Sequence[Part]):
        self._parts = parts
        self.count = sum(part.count for part in parts)

    @functools.cached_property
    def values(self) -> PyTree[np.ndarray]:
        """NumPy arrays with a leading axis of steps; waits for the device."""
        cut = lambda x, part: np.atleast_1d(x)[: part.count]
        join = lambda *logs: np.concatenate(list(map(cut, logs, self._parts)))
        return jax.tree.map(join, *jax.device_get([part.logs for part in self._parts]))

    @functools.cached_property
    def finished(self) -> float:
        """Time at which the last step was computed, from `time.perf_counter`; waits for it."""
        last = self._parts[-1]
        jax.block_until_ready(last.logs)
        return time.perf_counter() if last.finished is None else last.finished


class DeviceDataProgram:
    """Compiled steps over data on the device, where each step gathers its examples.

    One program serves any seed. If `stacked`, states and rows have a leading axis of runs.
    """

    def __init__(
        self,
        step: Step,
        data: PyTree,
        placement: Placement,
        chunk: int,
        *,
        stacked: bool = False,
        axis_name: str | None = None,
        state_sharding: PyTree = None,
    ):
        """Initializes the program; it is compiled at its first use.

        Args:
          data: All examples as one batch, replicated.
          placement: Devices; runs are spread over them if `stacked`, else batches.
          chunk: Largest number of steps per call.
          stacked: True if several runs train side by side.
          axis_name: Name of the axis of runs, for balancers that read the losses of all.
          state_sharding: Sharding of the state, or of each of its arrays; None: by `stacked`.
        """
        self.data, self.placement, self.chunk, self.stacked = data, placement, chunk, stacked

        def gather(data: PyTree, rows: Int[Array, " B"]) -> PyTree:
            spread = lambda x: x
            if not stacked:
                spread = lambda x: jax.lax.with_sharding_constraint(x, placement.batched)
            return spread(jax.tree.map(lambda x: jnp.take(x, spread(rows), axis=0), data))

        step_of_run = lambda state, data, rows: step(state, gather(data, rows))
        step_of_all = step_of_run
        if stacked:
            step_of_all = jax.vmap(step_of_run, in_axes=(0, None, 0), axis_name=axis_name)

        def one(state: TrainState, data: PyTree, rows: Rows, start: Index) -> StepResult:
            number = state.step[0] if stacked else state.step
            return step_of_all(state, data, rows[number - start])

        def many(
            state: TrainState, data: PyTree, rows: Rows, start: Index, count: Index
        ) -> StepResult:
            def body(i: Array, carry: PyTree) -> PyTree:
                state, logs = carry
                state, new = one(state, data, rows, start)
                return state, jax.tree.map(lambda all, x: all.at[i].set(x), logs, new)

            shapes = jax.eval_shape(one, state, data, rows, start)[1]
            empty = jax.tree.map(lambda x: jnp.zeros((chunk, *x.shape), x.dtype), shapes)
            return jax.lax.fori_loop(0, count, body, (state, empty))

        if state_sharding is None:
            state_sharding = placement.batched if stacked else placement.replicated
        outputs = (state_sharding, None if stacked else placement.replicated)
        self._one = jax.jit(one, donate_argnums=0, out_shardings=outputs)
        self._many = jax.jit(many, donate_argnums=0, out_shardings=outputs)
        self._gather = jax.jit(
            jax.vmap(gather, in_axes=(None, 0)) if stacked else gather,
            compiler_options=compiler_options(),
        )
        self._compiled: Any = None
        self.loops: bool | None = None
        """True if the steps of a chunk are a loop in one program; None before the first call."""
        self.cost = Cost()
        self._pace = Pace()

    def run(
        self,
        state: TrainState,
        rows: Int[np.ndarray, "chunk *S B"],
        start: int,
        count: int,
        stop: StopSignal,
    ) -> tuple[TrainState, Logs]:
        """Takes steps start ... start + count - 1, on the first `count` batches of `rows`."""
        rows, first = self.placement.replicate((rows, np.int32(start)))
        arguments = self.data, rows, first
        if self._compiled is None:
            with stop.interruptible(), phase("compiling the train step"):
                self._compile(state, *arguments)
        parts: list[Part] = []
        done = 0
        while done < count and not self._pace.must_stop(stop, count - done):
            began = time.perf_counter()
            size = self._pace.size(count - done) if self.loops else 1
            sizes = (np.int32(size),) if self.loops else ()
            mark()
            # The device finds the batch of a step by its number in the state.
            state, logs = self._compiled(state, *arguments, *sizes)
            self.placement.sync_on_virtual_cpus(logs)
            if self.stacked and not self.loops:
                logs = jax.tree.map(lambda x: x[None], logs)
            parts.append(Part(logs, size))
            done += size
            self._pace.dispatched(parts[-1], began, start + done)
        return state, Logs(parts)

    def batch(self, rows: Int[np.ndarray, "*S B"]) -> PyTree:
        """Returns the examples at `rows`."""
        return self._gather(self.data, self.placement.replicate(rows))

    def _compile(self, *arguments: Any) -> None:
        start = time.perf_counter()
        traced = self._many.trace(*arguments, np.int32(0))
        self.loops = jax.default_backend() != "cpu" or not uses(SLOW_IN_LOOPS, traced.jaxpr)
        if not self.loops:
            traced = self._one.trace(*arguments)
        self._compiled = compile_step(traced)
        self.cost = cost_of(self._compiled, time.perf_counter() - start)


NEVER = StopSignal()
"""Signal that is never set."""


class DeviceDataExecutor:
    """Executor of the steps of runs with certain seeds over data on the device."""

    def __init__(self, program: DeviceDataProgram, samplers: Sequence[BatchSampler]):
        self.program, self._samplers = program, samplers

    def run(
        self, state: TrainState, start: int, count: int, stop: StopSignal = NEVER
    ) -> tuple[TrainState, Logs]:
        """Takes steps start ... start + count - 1; fewer if a signal to stop is received."""
        # The same number of rows for any count, so that one program serves all.
        return self.program.run(state, self._rows(start, self.program.chunk), start, count, stop)

    def batch(self, start: int) -> PyTree:
        """Returns the batch of step `start`, the next one."""
        return self.program.batch(self._rows(start, 1)[0])

    def _rows(self, start: int, count: int) -> Int[np.ndarray, "count *S B"]:
        rows = [sampler.batches(start, count) for sampler in self._samplers]
        return np.stack(rows, 1) if self.program.stacked else rows[0]


class HostDataProgram:
    """Compiled single step over batches from the host."""

    def __init__(self, step: Step, placement: Placement, state_sharding: PyTree = None):
        self.placement = placement
        places = placement.replicated if state_sharding is None else state_sharding
        outputs = (places, placement.replicated)
        self._step = jax.jit(step, donate_argnums=0, out_shardings=outputs)
        self._compiled: Any = None
        self.cost = Cost()
        self.pace = Pace()

    def compile(self, state: TrainState, batch: PyTree, stop: StopSignal) -> None:
        """Compiles the step for arguments like these, at the first call."""
        if self._compiled is None:
            start = time.perf_counter()
            with stop.interruptible(), phase("compiling the train step"):
                self._compiled = compile_step(self._step.trace(state, batch))
            self.cost = cost_of(self._compiled, time.perf_counter() - start)

    def __call__(self, state: TrainState, batch: PyTree) -> StepResult:
        """Takes a step; `compile` must have been called."""
        return self._compiled(state, batch)


class HostDataExecutor:
    """Executor of steps over batches from the host; the next batch is transferred meanwhile."""

    def __init__(self, program: HostDataProgram, batches: Iterator[PyTree]):
        self.program, self._batches = program, batches
        self._next: PyTree = None

    def run(
        self, state: TrainState, start: int, count: int, stop: StopSignal = NEVER
    ) -> tuple[TrainState, Logs]:
        """Takes the next `count` steps; fewer if a signal to stop is received.

        `start` must be the step of the next batch.
        """
        parts: list[Part] = []
        program = self.program
        program.compile(state, self.batch(start), stop)
        while len(parts) < count and not program.pace.must_stop(stop, count - len(parts)):
            began, batch = time.perf_counter(), self.batch(start)
            mark()
            state, log = program(state, batch)
            self._next = self._fetch()  # while the device computes
            program.placement.sync_on_virtual_cpus(log)
            parts.append(Part(log))
            program.pace.dispatched(parts[-1], began, start + len(parts))
        return state, Logs(parts)

    def batch(self, start: int) -> PyTree:
        """Returns the batch of the next step."""
        del start
        if self._next is None:
            self._next = self._fetch()
        return self._next

    def _fetch(self) -> PyTree:
        batch = next(self._batches, None)
        return None if batch is None else self.program.placement.shard(batch)


def compile_step(traced: Any) -> Any:
    """Compiles a traced step with the options for its kind."""
    use: Use = "convolution" if uses(CONVOLUTIONS, traced.jaxpr) else "train"
    return traced.lower().compile(compiler_options(use=use))


def cost_of(compiled: Any, seconds: float) -> Cost:
    """Returns the cost of a program that was compiled in some seconds."""
    memory = compiled.memory_analysis()
    if memory is None:
        return Cost(seconds)
    arguments = memory.argument_size_in_bytes + memory.output_size_in_bytes
    return Cost(seconds, arguments - memory.alias_size_in_bytes + memory.temp_size_in_bytes)


def uses(names: Collection[str], jaxpr: Any) -> bool:
    """Returns True if a jaxpr, closed or not, contains one of the primitives at any depth."""
    jaxpr = getattr(jaxpr, "jaxpr", jaxpr)
    for equation in jaxpr.eqns:
        params = jax.tree.leaves(equation.params)
        inner = [x for x in params if hasattr(getattr(x, "jaxpr", x), "eqns")]
        if equation.primitive.name in names or any(uses(names, x) for x in inner):
            return True
    return False
