"""What runs of one experiment share whatever their seed: its data and its compiled programs."""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from mtljax import parallel, transfer
from mtljax.build import (
    Parts,
    build,
    compute_dtype,
    freeze_options,
    keeps_on_device,
    load_source,
    train_step,
)
from mtljax.compilation import compiler_options
from mtljax.config import Experiment
from mtljax.data import Source, Split, pipeline
from mtljax.evaluation.constant_predictor import constants
from mtljax.evaluation.evaluator import Evaluator
from mtljax.runs.selection import check_select
from mtljax.step.distillation import Distillation
from mtljax.step.state import TrainState, create_state
from mtljax.step.telemetry import ProbePoint, make_probe, make_telemetry
from mtljax.training.executors import (
    DeviceDataExecutor,
    DeviceDataProgram,
    HostDataExecutor,
    HostDataProgram,
    has_convolution,
)
from mtljax.training.teachers import load_teachers


class Programs:
    """An experiment made ready to run, with any seed, one run after the other or side by side.

    Attributes:
      experiment: Its seed is not looked at.
      source: The data.
      placement: Of one run, whose batches are spread over the devices.
      parts: The model, the balancer, the optimizer.
    """

    def __init__(
        self, experiment: Experiment, *, devices: int | None = None, source: Source | None = None
    ):
        """Loads the data and traces the first step, so that what does not fit together is found
        before anything is made. The trace is used again when the step is compiled.

        Args:
          experiment: What is to be run.
          devices: How many to use; None: all.
          source: The data, if it is loaded already; it may have more labels than the tasks need.

        Raises:
          ValueError: The experiment, the data or the devices are not as they must be.
        """
        self.experiment, self._devices = experiment, devices
        self.placement = parallel.place(experiment.data.batch_size, devices)
        self.source = load_source(experiment) if source is None else source
        pipeline.Order(seed=0, size=len(self.source.train), batch_size=experiment.data.batch_size)
        mean, std = statistics(experiment, self.source)
        self.parts = build(experiment, mean, std, self.source.low, self.source.high)
        check_select(experiment)
        self.distillation = load_teachers(experiment, self.parts.distill, self.source)
        create = fresh(experiment, self.parts, self.source, self.distillation)
        self._create = jax.jit(
            create,
            out_shardings=self.placement.replicated,
            compiler_options=compiler_options(use="once"),
        )
        self._step = jax.jit(train_step(experiment, self.parts, distill=self.distillation))
        self._traced = self._rehearse()
        self._resident: dict[int, DeviceDataProgram] = {}

    def _rehearse(self) -> Any:
        try:
            state = self._create.eval_shape(jax.random.key(0), {}).replace(teachers=self._teachers)
            return self._step.trace(state, batch_shapes(self.experiment, self.source))
        except ValueError:
            raise
        except (TypeError, IndexError, KeyError, AttributeError) as error:
            raise ValueError(
                f"the parts of this experiment do not fit together: {error}"
            ) from error

    def create(self, seed: int) -> TrainState:
        """The state of step 0, from the initial weights if the experiment names some."""
        return self._with_teachers(self._create(jax.random.key(seed), self.initial.variables))

    def restore_template(self) -> TrainState:
        """A state that another is restored in the place of, whatever is in it."""
        return self._with_teachers(self._create(jax.random.key(0), {}))

    def _with_teachers(self, state: TrainState) -> TrainState:
        """With teachers of its own, since a step takes all of a state for its own."""
        return state.replace(teachers=self.placement.replicate(self._teachers))

    @property
    def _teachers(self) -> PyTree:
        return () if self.distillation is None else self.distillation.variables

    @functools.cached_property
    def initial(self) -> transfer.Initial:
        """What all runs start from. It is read when it is first asked for, so never for a run that
        goes on.

        Raises:
          ValueError: It cannot be read, or does not fit.
        """
        experiment = self.experiment
        if experiment.init is None:
            return transfer.NOTHING
        shapes = self._create.eval_shape(jax.random.key(0), {})
        stored = transfer.read(transfer.locate(experiment.init))
        return transfer.match(
            stored._replace(where=experiment.init),
            self.parts.model,
            {"params": shapes.params, **shapes.model_state},
            part=experiment.init_part,
            low=self.source.low,
            high=self.source.high,
        )

    def feed(self, seeds: Sequence[int], start: int) -> DeviceDataExecutor | HostDataExecutor:
        """What takes the steps of runs with these seeds, from `start` on."""
        batch_size, split = self.experiment.data.batch_size, self.source.train
        orders = [
            pipeline.Order(seed=seed, size=len(split), batch_size=batch_size) for seed in seeds
        ]
        if keeps_on_device(self.experiment, split):
            return DeviceDataExecutor(self._resident_program(len(seeds)), orders)
        if len(orders) > 1:
            raise ValueError(
                "runs are trained side by side only on data that is kept on the device: leave out "
                "--together yes, or set --data.keep-on-device yes"
            )
        (order,) = orders
        batches = pipeline.stream(
            split,
            order,
            self.placement.local_rows(batch_size),
            start,
            self.experiment.steps,
            self.experiment.data.workers,
        )
        return HostDataExecutor(self._streaming, batches)

    def _resident_program(self, runs: int) -> DeviceDataProgram:
        if runs not in self._resident:
            placement = self.side_by_side(runs) if runs > 1 else self.placement
            data = placement.replicate(pipeline.resident(self.source.train))
            self._resident[runs] = DeviceDataProgram(
                self._step, data, placement, self.experiment.log_every, together=runs > 1
            )
        return self._resident[runs]

    @functools.cached_property
    def _streaming(self) -> HostDataProgram:
        return HostDataProgram(self._step, self.placement)

    @functools.cached_property
    def validation(self) -> Evaluator:
        """Evaluates the validation split."""
        return self._evaluator(self.source.validation)

    def validate(self, state: TrainState, runs: int) -> list[dict[str, dict[str, Any]]]:
        """The metrics on validation of each run of a state that `join` made."""
        if runs == 1:
            return [self.validation.metrics(state)]
        return self.validation.metrics_of_each(state, runs)

    @functools.cached_property
    def test(self) -> Evaluator:
        """Evaluates the test split."""
        return self._evaluator(self.source.test)

    @functools.cached_property
    def constant_predictor(self) -> dict[str, dict[str, Any]]:
        """The test split's metrics of each task's `constant`, {task: {metric: value}}."""
        tasks, batch_size = self.experiment.tasks, self.experiment.data.batch_size
        return self.test.constant_predictor_metrics(constants(tasks, self.source.train, batch_size))

    def _evaluator(self, split: Split) -> Evaluator:
        return Evaluator(
            self.parts.model,
            self.experiment.tasks,
            split,
            self.experiment.data.batch_size,
            self.placement,
            keep_on_device=keeps_on_device(self.experiment, split),
        )

    def keep(self, state: TrainState) -> TrainState:
        """A copy of what `measure` reads of a state, which the next step takes for its own."""
        # Without what differs from balancer to balancer, all of them have the same program.
        return _copy(state.replace(opt_state=None, balancer_state=None, ema=None))

    def measure(self, kept: TrainState, state: TrainState, batch: PyTree, runs: int) -> PyTree:
        """How the tasks' gradients agree; see `mtljax.step.telemetry`.

        Args:
          kept: The state before some updates, by `keep`.
          state: The one after them.
          batch: Of the first of them.
          runs: How many are trained side by side.
        """
        return (self._telemetry if runs == 1 else self._telemetry_of_several)(
            kept, state.params, batch
        )

    @functools.cached_property
    def _telemetry(self) -> Callable:
        return jax.jit(
            self._measure,
            out_shardings=self.placement.replicated,
            compiler_options=compiler_options(),
        )

    @functools.cached_property
    def _telemetry_of_several(self) -> Callable:
        return jax.jit(jax.vmap(self._measure), compiler_options=compiler_options())

    @functools.cached_property
    def _measure(self) -> Callable:
        return make_telemetry(self.probe)

    @functools.cached_property
    def probe(self) -> Callable[[TrainState, PyTree], ProbePoint]:
        """The losses of a batch as the step sees them; see `mtljax.step.telemetry.make_probe`."""
        return make_probe(
            self.parts.model,
            self.experiment.tasks,
            dtype=compute_dtype(self.experiment),
            augment=self.parts.augment,
            **freeze_options(self.experiment),
            distill=self.distillation,
        )

    @functools.cached_property
    def pays_together(self) -> bool:
        """Whether several seeds are trained faster side by side, in one program, than in turn.

        On CPUs a batch of convolutions with different kernels is some four times slower than one
        after the other; everywhere else one program for all is faster.
        """
        if jax.process_count() > 1 or not keeps_on_device(self.experiment, self.source.train):
            return False
        return jax.default_backend() != "cpu" or not has_convolution(self._traced.jaxpr)

    def side_by_side(self, runs: int) -> parallel.Placement:
        """Where runs that are trained together lie: spread evenly over devices."""
        count = self.placement.mesh.size
        return parallel.place(runs, max(d for d in range(1, count + 1) if runs % d == 0))

    def join(self, states: Sequence[TrainState]) -> TrainState:
        """The states of several runs as one, with an axis of runs first; one alone is unchanged."""
        if len(states) == 1:
            return states[0]
        return jax.device_put(_stack(states), self.side_by_side(len(states)).batched)

    def split(self, state: TrainState, runs: int) -> list[TrainState]:
        """Undoes `join`."""
        if runs == 1:
            return [state]
        return jax.device_put(_unstack(state, runs), self.placement.replicated)


@jax.jit
def _copy(tree: PyTree) -> PyTree:
    return jax.tree.map(jnp.copy, tree)


@jax.jit
def _stack(states: Sequence[TrainState]) -> TrainState:
    return jax.tree.map(lambda *x: jnp.stack(x), *states)


@functools.partial(jax.jit, static_argnums=1)
def _unstack(state: TrainState, runs: int) -> list[TrainState]:
    return [jax.tree.map(lambda x, i=i: x[i], state) for i in range(runs)]


def statistics(experiment: Experiment, source: Source) -> tuple[Any, Any]:
    """Mean and standard deviation that images are normalised by, unless initial weights bring some.

    Those may differ from channel to channel, so there is then one for each.
    """
    found = source.mean, source.std
    if experiment.init is None:
        return found
    channels = np.shape(source.train[0]["image"])[-1]
    mean, std = (tuple(np.broadcast_to(x, channels).tolist()) for x in found)
    return mean, std


def batch_shapes(experiment: Experiment, source: Source) -> Any:
    """Shapes and types of a batch, from the first example."""

    def shape(leaf: Any) -> jax.ShapeDtypeStruct:
        leaf = np.asarray(leaf)
        return jax.ShapeDtypeStruct((experiment.data.batch_size, *leaf.shape), leaf.dtype)

    return jax.tree.map(shape, dict(source.train[0]))


def fresh(
    experiment: Experiment, parts: Parts, source: Source, distill: Distillation | None = None
) -> Callable[..., TrainState]:
    """A function from a random key, and initial variables if there are any, to the first state."""
    shapes: PyTree = batch_shapes(experiment, source)

    def create(key: jax.Array, initial: PyTree = None) -> TrainState:
        state = create_state(
            key,
            parts.model,
            experiment.tasks,
            parts.balancer,
            parts.optimizer,
            jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes),
            level=experiment.level,
            ema=experiment.ema is not None,
            initial=initial,
            freeze=experiment.freeze,
            distill=distill,
        )
        # A program that returns them would have to contain them.
        return state.replace(teachers=())

    return create
