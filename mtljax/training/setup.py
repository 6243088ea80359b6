"""Set-up of an experiment: data, device placement, model parts, teachers, initial weights."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from mtljax import parallel, transfer
from mtljax.build import Parts, build, compute_dtype, freeze_options, load_source
from mtljax.config import Experiment
from mtljax.data import Source
from mtljax.data.augment import require_mirror_rules
from mtljax.data.pipeline import BatchSampler
from mtljax.data.resolve import derivations, resolve_tasks
from mtljax.runs.folder import CONFIG
from mtljax.runs.selection import check_select
from mtljax.runs.staging import local_folder
from mtljax.step.distillation import Distillation
from mtljax.step.state import TrainState, create_state
from mtljax.step.telemetry import ProbePoint, make_probe
from mtljax.training.teachers import load_teachers
from mtljax.utils.bounded_reading import read_json
from mtljax.utils.terminal import announce, phase


@dataclasses.dataclass(frozen=True)
class Setup:
    """An experiment with all that it names loaded and checked; valid for any seed."""

    experiment: Experiment
    """The experiment with resolved tasks; the seed is ignored."""
    source: Source
    """Loaded data."""
    placement: parallel.Placement
    """Placement of one run, with its batches spread over the devices."""
    parts: Parts
    """Model, balancer, optimizer and augmentations."""
    distillation: Distillation | None
    """Teachers; None without any."""
    derived: tuple[str, ...]
    """Lines on fields of tasks that were derived from the data."""

    @functools.cached_property
    def initial(self) -> transfer.InitialVariables:
        """Initial weights, read on first access, so not for runs that resume.

        Raises:
          ValueError: The weights cannot be read, or do not fit the model.
        """
        init = self.experiment.init
        if init is None:
            return transfer.NO_INITIAL
        shapes = self.state_shapes
        return transfer.match(
            transfer.read(transfer.locate(init))._replace(source=init),
            self.parts.model,
            {"params": shapes.params, **shapes.model_state},
            part=self.experiment.init_part,
            low=self.source.low,
            high=self.source.high,
        )

    @property
    def teachers(self) -> PyTree:
        """Variables of the distillation's teachers."""
        return () if self.distillation is None else self.distillation.variables

    def new_state(self, key: jax.Array, initial: PyTree = None) -> TrainState:
        """Creates the state of step 0 from initial variables, if any; pure, to be jitted.

        The teachers are left out: a program that returned them would have to contain them.
        """
        zeros = lambda x: jnp.zeros(x.shape, jax.dtypes.canonicalize_dtype(x.dtype))  # int64
        state = create_state(
            key,
            self.parts.model,
            self.experiment.tasks,
            self.parts.balancer,
            self.parts.optimizer,
            jax.tree.map(zeros, self.batch_shapes()),
            level=self.experiment.level,
            ema=self.experiment.ema is not None,
            initial=initial,
            freeze=self.experiment.freeze,
            distill=self.distillation,
        )
        return state.replace(teachers=())

    @functools.cached_property
    def state_shapes(self) -> TrainState:
        """Shapes and dtypes of a state, without teachers."""
        return jax.eval_shape(self.new_state, jax.random.key(0), {})

    @functools.cached_property
    def state_sharding(self) -> PyTree[jax.sharding.Sharding]:
        """Sharding of the state of one run: one for all of its arrays, or one for each."""
        placement = self.placement
        if placement.is_replicated:
            return placement.replicated
        return placement.of_state(self.state_shapes).replace(teachers=placement.replicated)

    def batch_shapes(self) -> PyTree[jax.ShapeDtypeStruct]:
        """Shapes and dtypes of a training batch, from the first example."""
        size = self.experiment.data.batch_size
        shape = lambda x: jax.ShapeDtypeStruct((size, *np.shape(x)), np.asarray(x).dtype)
        return jax.tree.map(shape, dict(self.source.train[0]))

    @functools.cached_property
    def probe(self) -> Callable[[TrainState, PyTree], ProbePoint]:
        """The losses of a batch as in the train step, without an attack; see `make_probe`."""
        return make_probe(
            self.parts.model,
            self.experiment.tasks,
            dtype=compute_dtype(self.experiment),
            augment=self.parts.augment,
            **freeze_options(self.experiment),
            distill=self.distillation,
            constraints=self.placement.constraints,
        )


def data_key(experiment: Experiment) -> str:
    """Returns text that is equal for experiments that read the same examples."""
    data = dataclasses.replace(experiment.data, batch_size=1, augment=(), workers=0)
    return repr((data, experiment.tasks))


def set_up(
    experiment: Experiment, *, devices: int | None = None, source: Source | None = None
) -> Setup:
    """Loads and checks all that an experiment names.

    Args:
      devices: Number of devices to use; None: all.
      source: The data if it is in memory already; it may have labels of further tasks.

    Raises:
      ValueError: The experiment, its data, its teachers or the devices are unusable.
    """
    batch_size = experiment.data.batch_size
    placement = parallel.place(batch_size, devices, experiment.sharding)
    require_unseen_fold(experiment)
    require_mirror_rules(experiment.data.augment, experiment.tasks)
    if source is None:
        with phase(f"reading {experiment.data.source}"):
            source = load_source(experiment)
    sizes = (f"{len(split):,} {name}" for name, split in source.splits().items())
    announce(f"examples: {', '.join(sizes)}")
    given = experiment.tasks
    with phase("reading the training labels", announced=False):
        experiment = dataclasses.replace(experiment, tasks=resolve_tasks(given, source))
    require_mirror_rules(experiment.data.augment, experiment.tasks)  # classes have names now
    BatchSampler(seed=0, size=len(source.train), batch_size=batch_size)  # checks the size
    parts = build(experiment, *_statistics(experiment, source), source.low, source.high)
    check_select(experiment)
    if parts.model.conditioning is not None:
        announce(
            f"conditioned on the preference over tasks ({experiment.condition}), which is equal in "
            "evaluations; predict --preference sets it"
        )
    distillation = load_teachers(experiment, parts.distill, source)
    derived = tuple(derivations(given, experiment.tasks))
    return Setup(experiment, source, placement, parts, distillation, derived)


def require_unseen_fold(experiment: Experiment) -> None:
    """Raises ValueError for a teacher or initial weights that learned the examples of the fold."""
    if experiment.data.fold is None:
        return
    for run in (*experiment.teachers.values(), experiment.init):
        config = None if run is None else local_folder(run) / CONFIG
        if config is None or not config.is_file():
            continue
        data = read_json(config).get("data", {})
        is_other_fold = data.get("fold") != experiment.data.fold
        if data.get("source") == experiment.data.source and is_other_fold:
            raise ValueError(
                f"{run} was trained on examples that fold {experiment.data.fold} tests: train it "
                f"with --data.fold {experiment.data.fold} too"
            )


def _statistics(experiment: Experiment, source: Source) -> tuple[Any, Any]:
    """Returns mean and standard deviation for normalization.

    They have one value per channel where initial weights may replace them.
    """
    if experiment.init is None:
        return source.mean, source.std
    channels = np.shape(source.train[0]["image"])[-1]
    mean, std = (np.broadcast_to(x, channels).tolist() for x in (source.mean, source.std))
    return tuple(mean), tuple(std)
