"""Training of members of a comparison in this process, side by side where that is faster."""

import dataclasses
from collections.abc import Iterator, Sequence

from mtljax.comparison.cross_validation import CrossValidation, labels_of
from mtljax.comparison.members import Failure, Member, Together
from mtljax.comparison.progress import Progress
from mtljax.comparison.trials import train_trials
from mtljax.data import Source
from mtljax.data.folds import Fold
from mtljax.merging.compatibility import check_compatible
from mtljax.runs.checkpoints import saved_steps
from mtljax.runs.folder import read_result
from mtljax.runs.joint_checkpoints import group_names, joint_step
from mtljax.runs.load import load_run
from mtljax.training.loop import train_group
from mtljax.training.merged_run import merge_runs
from mtljax.training.programs import Programs
from mtljax.training.setup import data_key, set_up
from mtljax.training.stopping import Stopped
from mtljax.tuning.trials import Trainer

Sources = dict[tuple[Fold | None, str], Source]
"""Data of members that were trained, by fold and experiment: others may have the same."""


def train_members(
    group: Sequence[Member],
    *,
    sources: Sources,
    progress: Progress,
    validation: CrossValidation | None = None,
    devices: int | None = None,
    together: Together = "auto",
) -> list[Failure]:
    """Trains members of one group of `groups_of`, merges or tunes them; returns those that failed.

    Args:
      sources: Data that is in memory already; that of the group is added.

    Raises:
      Stopped: SIGTERM was received; the states are saved.
    """
    if group[0].trials:
        trainer = Trainer(devices=devices, quiet=True)
        return [failure for member in group for failure in _tune(member, trainer, progress)]
    try:
        programs = _programs(group[0], devices, sources, validation)
        parts = _parts(group, programs, together)
    except Exception as error:
        return [progress.failed(member, error) for member in group]
    if group[0].parts:
        return [failure for member in group for failure in _merge(member, programs, progress)]
    return [failure for part in parts for failure in _train(part, programs, progress)]


def _programs(
    member: Member,
    devices: int | None,
    sources: Sources,
    validation: CrossValidation | None,
) -> Programs:
    """Makes the programs of a candidate; candidates with the same data share its source."""
    experiment = member.experiment
    full = validation.with_all_tasks(experiment) if validation else experiment
    key = member.fold, data_key(full)
    if validation is not None:
        for other in [key for key in sources if key[0] != member.fold]:
            del sources[other]
        if key not in sources:
            sources[key] = validation.load(experiment)
        source = labels_of(sources[key], experiment)
        return Programs(set_up(experiment, devices=devices, source=source))
    setup = set_up(experiment, devices=devices, source=sources.get(key))
    sources[key] = setup.source
    return Programs(setup)


def _parts(group: Sequence[Member], programs: Programs, together: Together) -> list[list[Member]]:
    """Divides members with the same program into those that train side by side.

    These are the seeds of a candidate, or candidates that differ in preference, seed by seed.
    """
    couples = programs.setup.parts.balancer.couples
    if couples and together == "no":
        raise ValueError("this balancer trains all rays in one program: leave out --together no")
    if not couples and (together == "no" or not (together == "yes" or programs.is_faster_stacked)):
        return [[member] for member in group]
    if len({id(member.candidate) for member in group}) == 1:
        return list(rounds(group))
    by_seed = [[m for m in group if m.seed == seed] for seed in {m.seed: None for m in group}]
    return by_seed if couples else [part for rays in by_seed for part in rounds(rays)]


def rounds(group: Sequence[Member]) -> Iterator[list[Member]]:
    """Yields the members that can train side by side.

    All of them if they have stacked checkpoints; else those that can start at the same step.
    """
    pending = list(group)
    names = group_names([member.folder for member in group], [member.seed for member in group])
    if joint_step(group[0].folder, names):
        yield pending
        return
    while pending:
        saved = {id(member): saved_steps(member.folder) for member in pending}
        step = min(max(steps, default=0) for steps in saved.values())
        part = [member for member in pending if step == 0 or step in saved[id(member)]]
        yield part
        pending = [member for member in pending if member not in part]


def _train(part: Sequence[Member], programs: Programs, progress: Progress) -> list[Failure]:
    progress.start(part)
    try:
        outcomes = train_group(
            [member.experiment for member in part],
            [member.folder for member in part],
            programs,
            quiet=True,
            report=False,
            progress=progress.step,
        )
    except Stopped:
        raise
    except Exception as error:
        return [progress.failed(member, error) for member in part]
    failures = []
    for member, outcome in zip(part, outcomes, strict=True):
        if isinstance(outcome, Stopped):
            failures.append(progress.failed(member, outcome))
        else:
            progress.finished(member)
    return failures


def _merge(member: Member, programs: Programs, progress: Progress) -> list[Failure]:
    progress.start([member])
    try:
        loaded = {}
        for path, part in zip(member.parts, member.candidate.parts, strict=True):
            if read_result(path) is None:
                raise ValueError(f"its single-task run {path} is not finished")
            loaded[path] = load_run(path, tasks=part.experiment.tasks)
        check_compatible(loaded)
        experiment = dataclasses.replace(programs.setup.experiment, seed=member.seed)
        method = member.candidate.merge
        merge_runs(experiment, loaded, member.folder, method, programs, report=False)
    except Exception as error:
        return [progress.failed(member, error)]
    progress.finished(member)
    return []


def _tune(member: Member, trainer: Trainer, progress: Progress) -> list[Failure]:
    progress.start([member])
    try:
        trainer.check(member.candidate.experiment)
        train_trials(member, trainer)
    except Exception as error:
        if isinstance(error, Stopped) and error.status != 1:  # a signal
            raise
        return [progress.failed(member, error)]
    progress.finished(member)
    return []
