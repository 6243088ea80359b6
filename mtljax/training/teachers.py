"""The teachers of a distillation: trained runs."""

from pathlib import Path

import jax

from mtljax.config import Experiment
from mtljax.data import Source
from mtljax.runs.load import TrainedModel, load_run
from mtljax.step.distillation import Distillation, Kind, Teacher
from mtljax.utils.registry import nearest


def load_teachers(experiment: Experiment, kind: Kind, source: Source) -> Distillation | None:
    """The runs that the experiment names, each read once; None if it names none.

    Raises:
      ValueError: A task that is not there, or a run that is none, has not learned the task, or was
        trained on other images.
    """
    if not experiment.teachers and experiment.distill != Experiment.distill:
        raise ValueError(
            f"distill {experiment.distill!r} needs teachers: name them, as --teachers TASK RUN"
        )
    ours = {task.name: task for task in experiment.tasks}
    taught: dict[str, list[str]] = {}
    for task, run in experiment.teachers.items():
        if task not in ours:
            raise ValueError(f"teachers: there is no task {task!r}{nearest(task, ours)}")
        taught.setdefault(run, []).append(task)

    teachers, variables = [], []
    for run, tasks in taught.items():
        trained = load_run(Path(run).expanduser())
        theirs = {task.name: task for task in trained.experiment.tasks}
        for task in tasks:
            if type(theirs.get(task)) is not type(ours[task]):
                kinds = ", ".join(f"{name} ({type(t).__name__})" for name, t in theirs.items())
                raise ValueError(
                    f"teachers: {run} has learned {kinds}, not {task} ({type(ours[task]).__name__})"
                )
        _require_same_images(run, trained, source)
        teachers.append(Teacher(trained.model, tuple(tasks), run))
        variables.append(jax.device_get(trained.state.variables))
    return Distillation(kind, tuple(teachers), tuple(variables)) if teachers else None


def _require_same_images(run: str, trained: TrainedModel, source: Source) -> None:
    here = (*source.train[0]["image"].shape, float(source.low), float(source.high))
    there = (*trained.shape, trained.low, trained.high)
    if here != there:
        told = lambda x: f"{list(x[:3])} from {x[3]:g} (black) to {x[4]:g} (white)"
        raise ValueError(
            f"teachers: {run} was trained on images {told(there)}, and these are {told(here)}"
        )
