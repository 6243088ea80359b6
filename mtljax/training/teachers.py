"""Teachers of a distillation, loaded from trained runs."""

import jax

from mtljax.config import Experiment
from mtljax.data import Source
from mtljax.runs.load import TrainedModel, load_run
from mtljax.step.distillation import Distillation, DistillationLoss, Teacher
from mtljax.utils.registry import nearest


def load_teachers(
    experiment: Experiment, kind: DistillationLoss, source: Source
) -> Distillation | None:
    """Loads the runs that the experiment names as teachers; None if it names none.

    Raises:
      ValueError: A task is unknown, or a run does not exist, lacks the task, or was trained on
        images of another shape or range.
    """
    if not experiment.teachers and experiment.distill != Experiment.distill:
        raise ValueError(f"distill {experiment.distill!r} needs teachers: add --teachers TASK RUN")
    tasks = {task.name: task for task in experiment.tasks}
    tasks_of_run: dict[str, list[str]] = {}
    for task, run in experiment.teachers.items():
        if task not in tasks:
            raise ValueError(f"teachers: unknown task {task!r}{nearest(task, tasks)}")
        tasks_of_run.setdefault(run, []).append(task)

    teachers, variables = [], []
    for run, names in tasks_of_run.items():
        trained = load_run(run)
        teacher_tasks = {task.name: task for task in trained.experiment.tasks}
        for name in names:
            kind_of_task = type(tasks[name])
            if type(teacher_tasks.get(name)) is not kind_of_task:
                known = ", ".join(f"{n} ({type(t).__name__})" for n, t in teacher_tasks.items())
                raise ValueError(
                    f"teachers: {run} was trained on {known}, not on {name} "
                    f"({kind_of_task.__name__})"
                )
        _check_images(run, trained, source)
        teachers.append(Teacher(trained.model, tuple(names), run))
        variables.append(jax.device_get(trained.state.variables))
    return Distillation(kind, tuple(teachers), tuple(variables)) if teachers else None


def _check_images(run: str, trained: TrainedModel, source: Source) -> None:
    student = (*source.train[0]["image"].shape, float(source.low), float(source.high))
    teacher = (*trained.shape, trained.low, trained.high)
    if student != teacher:
        text = lambda x: f"{list(x[:3])} from {x[3]:g} (black) to {x[4]:g} (white)"
        raise ValueError(
            f"teachers: {run} was trained on images {text(teacher)}; this experiment has images "
            f"{text(student)}"
        )
