"""From an experiment, which is only words and numbers, to the things it names."""

import dataclasses
import inspect
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import optax

from mtljax import models
from mtljax.balancing import BALANCERS, Balancer
from mtljax.config import Experiment
from mtljax.data import (
    Arrays,
    Augment,
    Source,
    Split,
    Wanted,
    make_augment,
    make_source,
    pipeline,
)
from mtljax.data.base import select, with_parts
from mtljax.data.droplist import without
from mtljax.models import FUSIONS, TRUNKS, MultiTask
from mtljax.models.fusion import Fusion
from mtljax.models.layer_depth import is_in_part
from mtljax.optim.optimizers import make_optimizer
from mtljax.step.attacks import ATTACKS, Attack
from mtljax.step.distillation import DISTILLATIONS, Distillation, Kind
from mtljax.step.train_step import make_train_step
from mtljax.tasks import Task
from mtljax.utils.registry import choose

FUSION_HIDDEN = tuple(inspect.signature(Fusion).parameters)
"""Arguments of a fusion that the model gives it, not the user."""
RESIDENT_LIMIT = 2**30
"""Bytes up to which data is kept on the device if the experiment does not say."""


@dataclasses.dataclass(frozen=True)
class Parts:
    """What an experiment is made of."""

    model: MultiTask
    balancer: Balancer
    optimizer: optax.GradientTransformation
    augment: Augment | None
    attack: Attack | None
    distill: Kind
    """What is imitated of teachers, if there are any."""


def load_source(experiment: Experiment, given: Source | None = None) -> Source:
    """The data, with a label for each task.

    What is kept on the device is read here, and all of its labels checked against the tasks.

    Args:
      experiment: Whose data.
      given: The data, if it is there already; None: what the experiment names.

    Raises:
      ValueError: An unknown source, a task without labels in it, or labels that a task refuses.
    """
    source = open_source(experiment, given)
    name = experiment.data.source.partition(":")[0]

    def kept(split: Split) -> Split:
        if isinstance(split, Arrays) or not keeps_on_device(experiment, split):
            return split
        return Arrays(**pipeline.resident(split))

    source = with_parts(source, kept)
    for part, split in source.parts().items():
        if isinstance(split, Arrays):
            try:
                check_labels(experiment.tasks, split)
            except ValueError as error:
                raise ValueError(f"source {name!r}, {part} split: {error}") from None
    return source


def open_source(experiment: Experiment, given: Source | None = None) -> Source:
    """The data, not read further than its source must to know what is there.

    Args:
      experiment: Whose data.
      given: The data, if it is there already; None: what the experiment names.

    Raises:
      ValueError: An unknown source, or a task without labels in it.
    """
    data = experiment.data
    wanted = [Wanted(task, data.labels.get(task.name, task.name)) for task in experiment.tasks]
    if given is None:
        source = make_source(data.source, wanted)
    else:
        source = select(given, wanted, data.source)
    return source if data.drop is None else without(source, Path(data.drop).expanduser())


def check_labels(tasks: Sequence[Task], split: Arrays) -> None:
    """Raises ValueError for a label that its task cannot learn."""
    for task in tasks:
        present = split.present[task.name]
        task.check(jax.tree.map(lambda x, keep=present: x[keep], split.labels[task.name]))


def keeps_on_device(experiment: Experiment, split: Split) -> bool:
    """Whether a split is kept on the device."""
    if experiment.data.keep_on_device == "auto":
        return pipeline.size_in_bytes(split) <= RESIDENT_LIMIT
    return experiment.data.keep_on_device == "yes"


def build(experiment: Experiment, mean=0.0, std=1.0, low: float = 0.0, high: float = 1.0) -> Parts:
    """Makes what the experiment names.

    Args:
      experiment: What to make.
      mean, std: Statistics of the training images; leave them where they come from a checkpoint.
      low, high: Black and white in their unit; read by adversarial training only.

    Raises:
      ValueError: A name or an argument that is not there, in one line with the nearest.
    """
    trunk = choose("trunk", experiment.trunk, TRUNKS)
    fusion = choose("fusion", experiment.fusion, FUSIONS, hidden=FUSION_HIDDEN)
    balancer = choose("balancer", experiment.balancer, BALANCERS)
    model = models.build(
        trunk.made(),
        fusion.make,
        experiment.tasks,
        mean=mean,
        std=std,
        remat=experiment.remat,
        **fusion.arguments,
    )
    stage_of = model.fusion.stage_of
    if experiment.l2_sp and experiment.init is None:
        raise ValueError(
            "l2_sp pulls to what training starts from: name it with init, or leave out l2_sp and "
            "let the optimizer decay, as adamw:weight_decay=1e-2"
        )
    return Parts(
        model=model,
        balancer=balancer.made(),
        optimizer=make_optimizer(
            experiment.optimizer,
            experiment.learning_rate,
            experiment.schedule,
            experiment.steps,
            clip_norm=experiment.clip_norm,
            decay_biases=experiment.decay_biases,
            l2_sp=experiment.l2_sp,
            started=lambda path: is_in_part(path, experiment.init_part, stage_of),
            layer_decay=experiment.layer_decay,
            unfreeze_every=experiment.unfreeze_every,
            stage_of=stage_of,
        ),
        augment=make_augment(experiment.data.augment, experiment.tasks),
        attack=make_attack(experiment.adversarial, low, high),
        distill=choose("distillation", experiment.distill, DISTILLATIONS).made(),
    )


def make_attack(
    text: str | None, low: float, high: float, eps: float | None = None
) -> Attack | None:
    """An attack by its name and arguments, on images between black and white.

    Args:
      text: As `pgd:eps=0.03,steps=7`. None: none.
      low, high: Black and white.
      eps: Where the text does not say it.

    Raises:
      ValueError: A name or an argument that is not there, or no eps.
    """
    if text is None:
        return None
    given = {} if eps is None else {"eps": eps}
    choice = choose("attack", text, ATTACKS, hidden=tuple(given))
    return dataclasses.replace(choice.made(**given), low=low, high=high)


def train_step(
    experiment: Experiment,
    parts: Parts,
    axis_name: str | None = None,
    distill: Distillation | None = None,
):
    """The experiment's train step; see `make_train_step`."""
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
        **freeze_options(experiment),
    )


def freeze_options(experiment: Experiment) -> dict[str, Any]:
    """What does not learn, as `make_train_step` and all that measures the same losses take it."""
    return {"freeze": experiment.freeze, "freeze_statistics": experiment.freeze_statistics}


def compute_dtype(experiment: Experiment):
    """What the model computes in; None: as its parameters are."""
    return jnp.bfloat16 if experiment.dtype == "bfloat16" else None
