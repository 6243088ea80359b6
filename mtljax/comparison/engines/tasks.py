"""Tasks of a cluster: members that train in one program, in a form that another process reads.

A task has experiments as the JSON of config.json and paths as text, so that it does not depend on
objects of the process that makes it.
"""

import dataclasses
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from mtljax.balancing import BALANCERS, COMBINATORS
from mtljax.comparison.cross_validation import CrossValidation
from mtljax.comparison.engines.base import Work
from mtljax.comparison.members import Member, Together
from mtljax.comparison.plan import Candidate, Method
from mtljax.comparison.trials import steps_of_trials
from mtljax.config import Experiment, from_json
from mtljax.config.balancers import balancer_from_text
from mtljax.config.files import run_config
from mtljax.config.task_classes import NOTEBOOK, code_digests
from mtljax.data import SOURCES
from mtljax.data.folds import Fold
from mtljax.models import FUSIONS, TRUNKS
from mtljax.runs.checkpoints import saved_steps
from mtljax.runs.joint_checkpoints import FOLDER as JOINT
from mtljax.runs.joint_checkpoints import group_names, joint_step
from mtljax.utils.bounded_reading import read_text
from mtljax.utils.text import quoted
from mtljax.utils.urls import url_below

REGISTRIES: Mapping[str, tuple[Mapping[str, Callable[..., Any]], ...]] = {
    "balancer": (BALANCERS, COMBINATORS),
    "trunk": (TRUNKS,),
    "fusion": (FUSIONS,),
    "source": (SOURCES,),
}
"""Kinds to which users add entries of their own, and where."""


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class MemberTask:
    """Members that train in one program; each task is equal to itself only."""

    members: tuple[Member, ...]
    """Runs to train, in order."""
    together: Together
    """Whether their seeds train in one program."""

    @property
    def folders(self) -> set[Path]:
        """Run folders that the task writes."""
        return {member.folder for member in self.members}

    @property
    def needs(self) -> set[Path]:
        """Run folders that must be finished before it starts."""
        return {folder for member in self.members for folder in member.parts}

    @property
    def saved(self) -> int:
        """Sum of the steps of the latest checkpoints, which grows while the task trains."""
        if self.members[0].trials:
            return sum(map(steps_of_trials, self.members))
        folders = [path for folder in self.folders for path in (folder, folder / JOINT)]
        return sum(max(saved_steps(folder), default=0) for folder in folders)

    def message(self, work: Work) -> dict[str, Any]:
        """Returns all that `members_of_message` needs, as JSON."""
        candidates = list({id(m.candidate): m.candidate for m in self.members}.values())
        numbers = {id(candidate): number for number, candidate in enumerate(candidates)}
        base, url = work.validation, url_below(work.workdir)
        return {
            "folder": str(Path.cwd()),
            "workdir": str(work.workdir),
            "candidates": [_candidate_to_json(candidate) for candidate in candidates],
            "members": [
                {
                    "method": member.method.name,
                    "candidate": numbers[id(member.candidate)],
                    "seed": member.seed,
                    "folder": str(member.folder),
                    "fold": None if member.fold is None else list(member.fold),
                    "parts": list(map(str, member.parts)),
                    "trials": member.trials,
                    "space": list(member.space),
                }
                for member in self.members
            ],
            "url": url,
            "folds": None if base is None else base.total,
            "table": None if base is None or url is None else base.table,
            "base": None if base is None else run_config(base.experiment),
            "code": [str(path) for path in _code_files(self.members)],
            "devices": work.devices,
            "together": self.together,
        }


def tasks_of(work: Work) -> list[MemberTask]:
    """Divides the members of a comparison into tasks: one each, unless they depend on each other.

    The rays of a balancer that learns from all of them train in one program, so do the seeds of a
    candidate with `together="yes"`, and runs that were begun side by side.
    """
    tasks = []
    for group in work.groups:
        parts = [group]
        if len({id(member.candidate) for member in group}) > 1:  # rays, seed by seed
            seeds = dict.fromkeys(member.seed for member in group)
            parts = [[member for member in group if member.seed == seed] for seed in seeds]
        couples = balancer_from_text(group[0].candidate.experiment.balancer).couples
        for part in parts:
            if couples:
                tasks.append(MemberTask(members=tuple(part), together=work.together))
            elif not part[0].parts and (work.together == "yes" or _began_together(part)):
                tasks.append(MemberTask(members=tuple(part), together="yes"))
            else:
                tasks += [MemberTask(members=(member,), together="no") for member in part]
    return tasks


def _began_together(part: Sequence[Member]) -> bool:
    names = group_names([member.folder for member in part], [member.seed for member in part])
    return len(part) > 1 and joint_step(part[0].folder, names) > 0


def require_portable(work: Work, engine: str) -> None:
    """Raises ValueError if an experiment has a part that exists in this process only."""
    candidates = {id(m.candidate): m.candidate for group in work.groups for m in group}
    for experiment in (candidate.experiment for candidate in candidates.values()):
        texts = {kind: getattr(experiment, kind, experiment.data.source) for kind in REGISTRIES}
        for kind, registries in REGISTRIES.items():
            for name in re.findall(r"\w+", texts[kind]):
                for registry in registries:
                    _require_own(kind, name, registry, engine)
        for task in experiment.tasks:
            if type(task).__module__ == NOTEBOOK:
                raise ValueError(
                    f"--engine {engine}: the class {type(task).__name__} of task {task.name!r} is "
                    "defined in a notebook or main script, which workers cannot import; define it "
                    "in a file, or use --engine local"
                )


def _require_own(
    kind: str, name: str, registry: Mapping[str, Callable[..., Any]], engine: str
) -> None:
    make: Any = registry.get(name)
    module = getattr(getattr(make, "func", make), "__module__", "mtljax")
    if make is not None and module.partition(".")[0] != "mtljax":
        raise ValueError(
            f"--engine {engine}: {kind} {quoted(name)} was added by {module} in this process, so "
            "that workers do not have it; use --engine local"
        )


def _code_files(members: Sequence[Member]) -> set[Path]:
    """Files of users with task classes."""
    experiments = [member.candidate.experiment for member in members]
    classes = {task.name: type(task) for e in experiments for task in e.tasks}
    return {path for path, _ in code_digests(classes).values()}


def _candidate_to_json(candidate: Candidate) -> dict[str, Any]:
    return {
        "settings": candidate.settings,
        "experiment": run_config(candidate.experiment),
        "merge": candidate.merge,
        "parts": [_candidate_to_json(part) for part in candidate.parts],
    }


def _experiment(config: dict[str, Any]) -> Experiment:
    return from_json(config, exact=True)


def _candidate(values: dict[str, Any]) -> Candidate:
    return Candidate(
        settings=values["settings"],
        experiment=_experiment(values["experiment"]),
        merge=values["merge"],
        parts=tuple(map(_candidate, values["parts"])),
    )


def members_of_message(message: dict[str, Any]) -> list[Member]:
    """Returns the members of a task.

    Raises:
      ValueError: A file with a task class is missing here, or has changed.
    """
    candidates = list(map(_candidate, message["candidates"]))
    members = []
    for values in message["members"]:
        candidate = candidates[values["candidate"]]
        method = Method(name=values["method"], kind="method", baseline="", candidates=(candidate,))
        fold = None if values["fold"] is None else Fold(*values["fold"])
        parts = tuple(map(Path, values["parts"]))
        folder, space = Path(values["folder"]), tuple(values["space"])
        members.append(
            Member(method, candidate, values["seed"], folder, fold, parts, values["trials"], space)
        )
    return members


def validation_of_message(message: dict[str, Any]) -> CrossValidation | None:
    """Returns the cross-validation that a task belongs to, if any; its table may be a file."""
    if message["folds"] is None:
        return None
    table = message["table"]
    if table is None:
        table = read_text(CrossValidation.file(Path(message["workdir"]), message["folds"]))
    return CrossValidation(_experiment(message["base"]), message["folds"], table)
