"""Construction of the data, model, balancer and optimizer that an experiment names."""

import contextlib
import dataclasses
import inspect
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import TypedDict

import jax
import jax.numpy as jnp
import numpy as np
import optax

from mtljax import models
from mtljax.balancing import Balancer
from mtljax.config import Experiment
from mtljax.config.balancers import balancer_from_text
from mtljax.data import Arrays, Augment, Source, Split, make_augment, make_source, pipeline
from mtljax.data.array_labels import parse_arrays
from mtljax.data.base import LabelRequest, map_splits, require_one_image, select_labels
from mtljax.data.cache import cached_source
from mtljax.data.cleaning import clean_arrays
from mtljax.data.droplist import drop_examples
from mtljax.data.folds import fold_source, moved_places, parse_fold
from mtljax.data.lazy import notes_of_reading
from mtljax.data.problems import known_problems, require_no_problems, without_problems
from mtljax.data.splitting import SPLITS
from mtljax.models import FUSIONS, TRUNKS, MultiTask
from mtljax.models.conditioning import make_conditioning
from mtljax.models.fusion import Fusion
from mtljax.models.layer_depth import is_in_part
from mtljax.optim.optimizers import make_optimizer
from mtljax.parallel import Constraints
from mtljax.step.attacks import Attack, make_attack
from mtljax.step.distillation import DISTILLATIONS, Distillation, DistillationLoss
from mtljax.step.preferences import require_prefers
from mtljax.step.state import Batch, TrainState
from mtljax.step.train_step import StepLogs, make_train_step
from mtljax.tasks import Segmentation, Task
from mtljax.utils.registry import choose
from mtljax.utils.text import error_prefix

FUSION_HIDDEN = tuple(inspect.signature(Fusion).parameters)
"""Arguments of a fusion that the model sets, not the user."""
MAX_MASKS = 1000
"""Maximum number of masks in which a class other than the background is searched."""
RESIDENT_LIMIT = 2**30
"""Maximum bytes of a split that keep_on_device=auto keeps on the device."""


@dataclasses.dataclass(frozen=True)
class Parts:
    """Objects that an experiment names."""

    model: MultiTask
    """Multi-task network."""
    balancer: Balancer
    """Balancer with its arguments and combinators."""
    optimizer: optax.GradientTransformation
    """Optimizer with learning rate schedule, clipping and weight decay."""
    augment: Augment | None
    """Augmentations in their order; None without any."""
    attack: Attack | None
    """Attack of adversarial training; None without one."""
    distill: DistillationLoss
    """Distillation loss; used only with teachers."""


def load_source(experiment: Experiment, source: Source | None = None) -> Source:
    """Opens the data, and reads and checks the splits that stay in device memory.

    Without data in memory, `source`, opens the experiment's `data.source`.

    Raises:
      ValueError: The source is unknown, or a task has no labels or invalid ones.
    """
    opened = open_source(experiment, source, caches=True)
    return load_resident(experiment, usable(experiment, opened))


def usable(experiment: Experiment, source: Source, parts: Collection[str] = SPLITS) -> Source:
    """Returns the source without the examples that cannot be used, if `data.on_error` is skip.

    Args:
      parts: Splits that are needed.

    Raises:
      ValueError: An example is known to be unusable, without reading images, and is to be reported.
    """
    if experiment.data.on_error == "skip":
        return without_problems(source, parts)
    require_no_problems([p for p in known_problems(source) if p.place.split in parts])
    return source


def load_resident(experiment: Experiment, source: Source) -> Source:
    """Reads the splits that stay in device memory; raises ValueError for an invalid label."""
    name = experiment.data.source.partition(":")[0]

    def read(split: Split) -> Split:
        if isinstance(split, Arrays) or not keeps_on_device(experiment, split):
            return split
        return Arrays(**pipeline.read_split(split), origin=split)

    source = map_splits(source, read)
    for part, split in source.splits().items():
        if isinstance(split, Arrays):
            with error_prefix(f"source {name!r}, {part} split"):
                check_labels(experiment.tasks, split)
    with error_prefix(f"source {name!r}, train split"):
        require_learnable(experiment.tasks, source.train)
    return dataclasses.replace(source, notes=(*source.notes, *notes_of_reading(source)))


def open_source(
    experiment: Experiment,
    source: Source | None = None,
    needed: Sequence[str] = SPLITS,
    *,
    caches: bool = False,
) -> Source:
    """Opens `source`, or the experiment's, with a label for each task; reads no examples.

    Args:
      needed: Splits that must have examples.
      caches: Read all examples and add them to `data.cache`, if it is set, not only use it.

    Raises:
      ValueError: The source is unknown or has no labels for a task.
    """
    data, tasks = experiment.data, experiment.tasks
    requests = [LabelRequest(task, data.labels.get(task.name, task.name)) for task in tasks]
    if source is None:
        parts = SPLITS if data.fold is not None else needed
        source = make_source(data.source, requests, parts, data.decoder)
        if isinstance(source.train, Arrays):  # other sources have one, maybe unreadable
            require_one_image(source)
        if data.cache is not None:
            if caches and data.on_error == "fail" and data.drop is None:
                require_no_problems(known_problems(source))
            source = cached_source(source, data.cache, builds=caches)
    else:
        require_one_image(source)
        source = select_labels(source, requests, data.source)
    source = clean_arrays(parse_arrays(source, tasks), tasks)
    moved = None
    if data.fold is not None:
        source = fold_source(source, parse_fold(data.fold))
        moved = moved_places(source.splits())
    if data.drop is None:
        return source
    names = [task.name for task in tasks]
    return drop_examples(source, Path(data.drop).expanduser(), names, moved)


def check_labels(tasks: Sequence[Task], split: Arrays) -> None:
    """Raises ValueError if a label is invalid for its task."""
    for task in tasks:
        present = split.present[task.name]
        task.check(jax.tree.map(lambda x, keep=present: x[keep], split.labels[task.name]))


def require_learnable(tasks: Sequence[Task], split: Split) -> None:
    """Raises ValueError for masks with class 0 and ignored pixels only: foreground as 255.

    Examines `MAX_MASKS` masks, evenly spaced, up to the first one with another class.
    """
    rows = np.unique(np.linspace(0, len(split) - 1, min(len(split), MAX_MASKS)).astype(int))
    for task in tasks:
        if isinstance(task, Segmentation) and task.ignore is not None:
            values: set[int] = set()
            for row in rows:
                if values - {0, task.ignore}:
                    break
                with contextlib.suppress(ValueError):  # reported where the example is used
                    example = split[int(row)]
                    if example["present"][task.name]:
                        values |= set(np.unique(example["labels"][task.name]).tolist())
            if task.ignore in values and values <= {0, task.ignore}:
                raise ValueError(
                    f"task {task.name!r}: the masks have only the values 0 and {task.ignore}, and "
                    f"ignore={task.ignore} leaves out the latter; if it is an object, set "
                    f"values=(0, {task.ignore}) with num_classes=2, or ignore=None"
                )


def keeps_on_device(experiment: Experiment, split: Split) -> bool:
    """Returns True if a split is retained in device memory."""
    if experiment.data.keep_on_device == "auto":
        return pipeline.size_in_bytes(split) <= RESIDENT_LIMIT
    return experiment.data.keep_on_device == "yes"


def build(
    experiment: Experiment,
    mean: float | tuple[float, ...] = 0.0,
    std: float | tuple[float, ...] = 1.0,
    low: float = 0.0,
    high: float = 1.0,
) -> Parts:
    """Builds the objects that an experiment names.

    Args:
      mean, std: Statistics of the training images; not needed if a checkpoint is restored.
      low, high: Values of black and white in the images, for adversarial training.

    Raises:
      ValueError: A name or argument is unknown or invalid.
    """
    trunk = choose("trunk", experiment.trunk, TRUNKS)
    fusion = choose("fusion", experiment.fusion, FUSIONS, hidden=FUSION_HIDDEN)
    balancer = balancer_from_text(experiment.balancer)
    model = models.build(
        trunk.build(),
        fusion.factory,
        experiment.tasks,
        mean=mean,
        std=std,
        remat=experiment.remat,
        conditioning=make_conditioning(experiment.condition),
        **fusion.arguments,
    )
    if model.conditioning is not None:
        require_prefers(balancer)
    stage_of = model.fusion.stage_of
    if experiment.l2_sp and experiment.init is None:
        raise ValueError(
            "l2_sp needs init, the weights to pull towards; set init, or use weight decay instead "
            "of l2_sp, such as adamw:weight_decay=1e-2"
        )
    return Parts(
        model=model,
        balancer=balancer,
        optimizer=make_optimizer(
            experiment.optimizer,
            experiment.learning_rate,
            experiment.schedule,
            experiment.steps,
            clip_norm=experiment.clip_norm,
            decay_biases=experiment.decay_biases,
            l2_sp=experiment.l2_sp,
            is_pretrained=lambda path: is_in_part(path, experiment.init_part, stage_of),
            scales=experiment.learning_rate_scales,
            layer_decay=experiment.layer_decay,
            unfreeze_every=experiment.unfreeze_every,
            stage_of=stage_of,
        ),
        augment=make_augment(experiment.data.augment, experiment.tasks),
        attack=make_attack(experiment.adversarial, low, high),
        distill=choose("distillation", experiment.distill, DISTILLATIONS).build(),
    )


def train_step(
    experiment: Experiment,
    parts: Parts,
    axis_name: str | None = None,
    distill: Distillation | None = None,
    constraints: Constraints = Constraints(),
) -> Callable[[TrainState, Batch], tuple[TrainState, StepLogs]]:
    """Creates the experiment's train step; see `make_train_step`."""
    return make_train_step(
        parts.model,
        experiment.tasks,
        parts.balancer,
        parts.optimizer,
        level=experiment.level,
        heads=None if experiment.heads == "auto" else experiment.heads,
        axis_name=axis_name,
        microbatches=experiment.microbatches,
        ema_decay=experiment.ema,
        dtype=compute_dtype(experiment),
        augment=parts.augment,
        pullback=experiment.pullback,
        jacobian=experiment.jacobian,
        attack=parts.attack,
        distill=distill,
        constraints=constraints,
        **freeze_options(experiment),
    )


class FreezeOptions(TypedDict):
    """Freezing arguments of `make_train_step`."""

    freeze: Sequence[str]
    """Modules whose parameters are frozen."""
    freeze_statistics: bool
    """True for batch normalization in evaluation mode."""


def freeze_options(experiment: Experiment) -> FreezeOptions:
    """Freezing arguments of `make_train_step` and of functions that compute the same losses."""
    return {"freeze": experiment.freeze, "freeze_statistics": experiment.freeze_statistics}


def compute_dtype(experiment: Experiment) -> type[jnp.bfloat16] | None:
    """Computation type of the model; None: the type of its parameters."""
    return jnp.bfloat16 if experiment.dtype == "bfloat16" else None
