"""Compiled programs of an experiment, shared by runs with any seed."""

import functools
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from mtljax import parallel
from mtljax.balancing.rays import AXIS
from mtljax.build import keeps_on_device, train_step
from mtljax.compilation import AheadOfTime, compiler_options
from mtljax.data import pipeline
from mtljax.evaluation.constant_predictor import constant_outputs
from mtljax.evaluation.evaluator import Evaluator, make_evaluator
from mtljax.models.convolution import CONVOLUTIONS
from mtljax.optim.schedules import Plateau, make_schedule
from mtljax.step.state import TrainState
from mtljax.step.telemetry import make_telemetry
from mtljax.tasks.metric import SplitMetrics
from mtljax.training.executors import (
    DeviceDataExecutor,
    DeviceDataProgram,
    HostDataExecutor,
    HostDataProgram,
    uses,
)
from mtljax.training.setup import Setup
from mtljax.utils.terminal import phase
from mtljax.utils.text import first_line

Measure = Callable[[TrainState, PyTree, PyTree], PyTree]
"""(state before some updates, parameters after them, batch of the first) -> measurement."""


class Programs:
    """Compiled programs of one set-up. Several runs may share them, in turn or side by side.

    The states of runs that train side by side are stacked: they have a leading axis of runs.
    """

    def __init__(self, setup: Setup):
        """Traces the first step, whose trace is reused when it is compiled.

        Raises:
          ValueError: The parts of the experiment do not fit together.
        """
        self.setup = setup
        self._create = jax.jit(
            setup.new_state,
            out_shardings=setup.state_sharding,
            compiler_options=compiler_options(use="once"),
        )
        # Without compiler options, which JAX accepts on the outermost `jit` only.
        self._step = jax.jit(
            train_step(
                setup.experiment,
                setup.parts,
                distill=setup.distillation,
                constraints=setup.placement.constraints,
            )
        )
        try:
            state = self._create.eval_shape(jax.random.key(0), {}).replace(teachers=setup.teachers)
            batch = setup.batch_shapes()
            self._traced = self._step.trace(
                _shapes(state, setup.state_sharding), _shapes(batch, setup.placement.batched)
            )
        except (TypeError, IndexError, KeyError, AttributeError) as error:
            reason = f"the parts of this experiment do not fit together: {first_line(error)}"
            raise ValueError(reason) from error
        self._device_data: dict[tuple[int, bool], DeviceDataProgram] = {}
        self._first_evaluator: Evaluator | None = None

    def create(self, seed: int, preference: Sequence[float] | None = None) -> TrainState:
        """Returns the state of step 0, from the initial weights if the experiment names some.

        Args:
          preference: Preference over the tasks in the balancer's state; None: the experiment's.
        """
        state = self._create(jax.random.key(seed), self.setup.initial.variables)
        if preference is not None:
            values = self.setup.placement.replicate(np.asarray(preference, np.float32))
            state = state.replace(balancer_state={**state.balancer_state, "preference": values})
        return self._with_teachers(state)

    def restore_template(self) -> TrainState:
        """Returns a state with the shapes and shardings to restore into."""
        return self._with_teachers(self._create(jax.random.key(0), {}))

    def _with_teachers(self, state: TrainState) -> TrainState:
        """Adds a copy of the teachers' variables, since a step takes over all of its state."""
        return state.replace(teachers=self.setup.placement.replicate(self.setup.teachers))

    def executor(self, seeds: Sequence[int], start: int) -> DeviceDataExecutor | HostDataExecutor:
        """Returns the executor of the steps of runs with these seeds, from step `start` on.

        Runs with the same seed are the rays of a front.
        """
        experiment, split = self.setup.experiment, self.setup.source.train
        batch_size = experiment.data.batch_size
        sampler = functools.partial(pipeline.BatchSampler, size=len(split), batch_size=batch_size)
        samplers = [sampler(seed=seed) for seed in seeds]
        if len(seeds) > 1 and not self.setup.placement.is_replicated:
            raise ValueError(
                f"--sharding {experiment.sharding} trains one network at a time: leave out "
                "--together yes, or use --sharding replicated"
            )
        if keeps_on_device(experiment, split):
            program = self._device_data_program(len(seeds), rays=len(set(seeds)) < len(seeds))
            return DeviceDataExecutor(program, samplers)
        if len(samplers) > 1:
            raise ValueError(
                "seeds can train side by side only if the data is kept on the device: leave out "
                "--together yes, or set --data.keep-on-device yes"
            )
        rows, steps = self.setup.placement.local_rows(batch_size), experiment.steps
        batches = pipeline.stream(split, samplers[0], rows, start, steps, experiment.data.workers)
        return HostDataExecutor(self._host_data_program, batches)

    def _device_data_program(self, runs: int, *, rays: bool) -> DeviceDataProgram:
        if (runs, rays) not in self._device_data:
            placement = self.runs_placement(runs) if runs > 1 else self.setup.placement
            train = self.setup.source.train
            with phase(f"reading {len(train):,} training examples into device memory"):
                data = placement.replicate(pipeline.read_split(train))
            chunk = self.setup.experiment.log_every
            axis_name = AXIS if rays else None
            self._device_data[runs, rays] = DeviceDataProgram(
                self._step,
                data,
                placement,
                chunk,
                stacked=runs > 1,
                axis_name=axis_name,
                state_sharding=None if runs > 1 else self.setup.state_sharding,
            )
        return self._device_data[runs, rays]

    @functools.cached_property
    def _host_data_program(self) -> HostDataProgram:
        return HostDataProgram(self._step, self.setup.placement, self.setup.state_sharding)

    def observe_scores(self, state: TrainState, scores: Sequence[float]) -> TrainState:
        """Returns the state after an evaluation with these scores, for the plateau schedule."""
        experiment = self.setup.experiment
        schedule = make_schedule(experiment.schedule, experiment.learning_rate, experiment.steps)
        if not isinstance(schedule, Plateau):
            return state
        inner, plateau = state.opt_state
        new = schedule.observe(plateau, np.asarray(scores if state.step.ndim else scores[0]))
        place = lambda x, old: jax.device_put(x, old.sharding)
        return state.replace(opt_state=(inner, jax.tree.map(place, new, plateau)))

    @functools.cached_property
    def validation(self) -> Evaluator:
        """Evaluator of the validation split."""
        return self._evaluator("validation")

    @functools.cached_property
    def test(self) -> Evaluator:
        """Evaluator of the test split."""
        return self._evaluator("test")

    def _evaluator(self, split: str) -> Evaluator:
        setup = self.setup
        examples = setup.source.splits()[split]
        with phase(f"reading {len(examples):,} {split} examples", announced=False):
            if self._first_evaluator is not None:
                keeps = keeps_on_device(setup.experiment, examples)
                return self._first_evaluator.with_split(examples, keep_on_device=keeps)
            self._first_evaluator = make_evaluator(
                setup.experiment, setup.parts.model, examples, setup.placement
            )
            return self._first_evaluator

    @functools.cached_property
    def constant_predictor(self) -> SplitMetrics:
        """Test metrics of the constant-predictor baseline, fitted to the training labels."""
        experiment, train = self.setup.experiment, self.setup.source.train
        best = constant_outputs(experiment.tasks, train, experiment.data.batch_size)
        return self.test.constant_predictor_metrics(best)

    @functools.cached_property
    def telemetry(self) -> "CompiledMeasure":
        """Compiled telemetry; see `mtljax.step.telemetry`."""
        return self.compile_measure(make_telemetry(self.setup.probe))

    def compile_measure(self, measure: Measure) -> "CompiledMeasure":
        """Compiles a measurement for one run and, by `vmap`, for stacked states."""
        return CompiledMeasure(measure, self.setup.placement.replicated)

    @functools.cached_property
    def is_faster_stacked(self) -> bool:
        """True if several seeds train faster side by side, in one program, than in turn.

        On CPU, convolutions with different kernels run one after the other in any case; elsewhere
        one program for all is faster.
        """
        setup = self.setup
        is_single = jax.process_count() > 1 or not setup.placement.is_replicated
        if is_single or not keeps_on_device(setup.experiment, setup.source.train):
            return False
        return jax.default_backend() != "cpu" or not uses(CONVOLUTIONS, self._traced.jaxpr)

    def runs_placement(self, runs: int) -> parallel.Placement:
        """Returns the placement of stacked states: runs spread evenly over the devices."""
        count = self.setup.placement.mesh.size
        return parallel.place(runs, max(d for d in range(1, count + 1) if runs % d == 0))

    def stack(self, states: Sequence[TrainState]) -> TrainState:
        """Stacks the states of several runs; the state of a single run is returned as it is."""
        if len(states) == 1:
            return states[0]
        return jax.device_put(_stack(states), self.runs_placement(len(states)).batched)

    def unstack(self, state: TrainState) -> list[TrainState]:
        """Inverse of `stack`."""
        if not state.step.ndim:
            return [state]
        return jax.device_put(_unstack(state), self.setup.placement.replicated)


def _shapes(tree: PyTree, shardings: PyTree) -> PyTree[jax.ShapeDtypeStruct]:
    """Returns shapes with shardings, without which a trace is not reused."""
    shape = lambda x, place: jax.ShapeDtypeStruct(jnp.shape(x), x.dtype, sharding=place)
    return jax.tree.map(shape, tree, jax.tree.broadcast(shardings, tree))


class CompiledMeasure:
    """Compiled measurement of one run and, by `vmap`, of stacked states."""

    def __init__(self, measure: Measure, places: jax.sharding.Sharding):
        options = compiler_options()
        self._one = AheadOfTime(jax.jit(measure, out_shardings=places, compiler_options=options))
        self._several = AheadOfTime(jax.jit(jax.vmap(measure), compiler_options=options))

    def _of(self, state: TrainState) -> AheadOfTime:
        return self._several if state.step.ndim else self._one

    def compile_ahead(self, state: TrainState, params: PyTree, batch: PyTree) -> None:
        """Starts to compile for arrays like these; see `AheadOfTime`."""
        self._of(state).compile_ahead(state, params, batch)

    def __call__(self, state: TrainState, params: PyTree, batch: PyTree) -> PyTree:
        """Measures; see `Measure`."""
        return self._of(state)(state, params, batch)


def copy_for_measurement(state: TrainState) -> TrainState:
    """Copies what a measurement reads of a state that the next step will take over.

    What differs from balancer to balancer is left out, so that all share one program.
    """
    return _copy(state.replace(opt_state=None, balancer_state=None, ema=None))


_copy = jax.jit(lambda tree: jax.tree.map(jnp.copy, tree))
_stack = jax.jit(lambda states: jax.tree.map(lambda *x: jnp.stack(x), *states))
_unstack = jax.jit(
    lambda state: [jax.tree.map(lambda x, i=i: x[i], state) for i in range(len(state.step))]
)
