"""Training of the unfinished runs of a comparison, seeds side by side where that is faster."""

import contextlib
import dataclasses
import itertools
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from mtljax.comparison.cross_validation import CrossValidation, labels_of
from mtljax.comparison.plan import Candidate, Method
from mtljax.config import Experiment
from mtljax.data import Source
from mtljax.data.folds import Fold
from mtljax.merging.compatibility import check_compatible
from mtljax.runs.checkpoints import saved_steps
from mtljax.runs.folder import check_folder, read_result
from mtljax.runs.joint_checkpoints import group_names, joint_step
from mtljax.runs.load import load_run
from mtljax.training.loop import train_group
from mtljax.training.merged_run import merge_runs
from mtljax.training.programs import Programs
from mtljax.training.setup import set_up
from mtljax.training.stopping import Stopped
from mtljax.utils.terminal import announcements, can_show_bar, console, print_line
from mtljax.utils.text import count

Together = Literal["auto", "yes", "no"]


class Member(NamedTuple):
    """One run of a comparison."""

    method: Method
    candidate: Candidate
    seed: int
    folder: Path
    fold: Fold | None = None
    parts: tuple[Path, ...] = ()
    """Folders of the single-task runs to merge; empty for a run that is trained."""

    @property
    def experiment(self) -> Experiment:
        """Experiment of the run."""
        return self.candidate.member(self.seed, self.fold)

    @property
    def setting(self) -> str:
        """Method, candidate and fold, for messages."""
        settings = f" ({self.candidate.settings})" if self.candidate.settings else ""
        fold = f", fold {self.fold}" if self.fold else ""
        return f"{self.method.name}{settings}{fold}"

    @property
    def name(self) -> str:
        """Name for messages."""
        return f"{self.setting}, seed {self.seed}"


class Failure(NamedTuple):
    """Run that did not finish."""

    member: str
    reason: str


def run_members(
    methods: Sequence[Method],
    seeds: Sequence[int],
    workdir: Path,
    *,
    validation: CrossValidation | None = None,
    devices: int | None = None,
    together: Together = "auto",
    quiet: bool = False,
) -> list[Failure]:
    """Trains the unfinished runs, fold by fold in a cross-validation; returns those that failed.

    Raises:
      Stopped: SIGTERM was received; the states are saved.
    """
    members = [
        _member(method, candidate, seed, workdir, fold)
        for fold in (validation.folds if validation else [None])
        for method in methods
        for candidate in method.candidates
        for seed in seeds
    ]
    pending = [member for member in members if not _is_finished(member)]
    failures: list[Failure] = []
    sources: dict[tuple[Fold | None, str], Source] = {}
    progress = ComparisonProgress(len(members), pending, quiet=quiet)
    with progress.bar or contextlib.nullcontext():
        for _, same in itertools.groupby(pending, lambda m: (m.fold, m.candidate.program)):
            with announcements(not quiet and not sources):  # what the first candidate does
                group = list(same)
                try:
                    programs = _programs(group[0], devices, sources, validation)
                    parts = _parts(group, programs, together)
                except Exception as error:
                    failures += [progress.failed(member, error) for member in group]
                    continue
                if group[0].parts:
                    for member in group:
                        failures += _merge(member, programs, progress)
                    continue
                for part in parts:
                    failures += _train(part, programs, progress)
    return failures


def _member(
    method: Method, candidate: Candidate, seed: int, workdir: Path, fold: Fold | None
) -> Member:
    parts = tuple(part.folder(workdir, seed, fold) for part in candidate.parts)
    return Member(method, candidate, seed, candidate.folder(workdir, seed, fold), fold, parts)


def _is_finished(member: Member) -> bool:
    try:
        check_folder(member.folder, member.experiment)
        return read_result(member.folder) is not None
    except ValueError:
        return False  # reported when it is trained


def _programs(
    member: Member,
    devices: int | None,
    sources: dict[tuple[Fold | None, str], Source],
    validation: CrossValidation | None,
) -> Programs:
    """Makes the programs of a candidate; candidates with the same data share its source."""
    experiment = member.experiment
    full = validation.with_all_tasks(experiment) if validation else experiment
    data = dataclasses.replace(full.data, batch_size=1, augment=(), workers=0)
    key = member.fold, repr((data, full.tasks))
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


def _train(
    part: Sequence[Member], programs: Programs, progress: "ComparisonProgress"
) -> list[Failure]:
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


def _merge(member: Member, programs: Programs, progress: "ComparisonProgress") -> list[Failure]:
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


class ComparisonProgress:
    """Progress over all runs: a bar on a terminal, elsewhere one line per run."""

    def __init__(self, total: int, pending: Sequence[Member], *, quiet: bool):
        self._quiet, self._total, self._done = quiet, total, total - len(pending)
        self._total_steps = sum(member.candidate.steps for member in pending)
        self._steps_done, self._steps_now = 0, 0
        self._start_time = time.perf_counter()
        if self._done and not quiet:
            print_line(f"{self._done} of {total} runs are finished already")
        self.bar: Progress | None = None
        if can_show_bar() and not quiet and pending:
            self.bar = Progress(
                TextColumn("{task.completed:.0f}/{task.total:.0f} steps"),
                BarColumn(bar_width=24),
                TimeElapsedColumn(),
                TextColumn("{task.fields[left]}  {task.fields[now]}", markup=False),
                console=console,
                transient=True,
            )
            self._task = self.bar.add_task("", total=self._total_steps, left="", now="")

    def start(self, part: Sequence[Member]) -> None:
        """Announces the runs that train now, side by side."""
        self._runs, self._now = len(part), part[0].name
        if part[0].candidate is not part[-1].candidate:
            self._now = f"{part[0].name} and {count(len(part) - 1, 'further ray')}"
        elif len(part) > 1:
            seeds = ", ".join(str(member.seed) for member in part)
            self._now = f"{part[0].setting}, seeds {seeds}"
        self.step(0)

    def step(self, step: int) -> None:
        """Updates the number of steps that the present runs have taken."""
        self._steps_now = step * self._runs
        if self.bar is not None:
            steps = self._steps_done + self._steps_now
            self.bar.update(self._task, completed=steps, left=self._left(), now=self._now)

    def finished(self, member: Member) -> None:
        """Reports a finished run."""
        self._count(member)
        if not self._quiet:
            print_line(f"[{self._done}/{self._total}] {member.name}  {self._left()}")

    def failed(self, member: Member, error: BaseException) -> Failure:
        """Reports a run that failed."""
        self._count(member)
        failure = Failure(member.name, " ".join(str(error).split()) or type(error).__name__)
        if not self._quiet:
            print_line(f"[{self._done}/{self._total}] {member.name} FAILED: {failure.reason}")
        return failure

    def _count(self, member: Member) -> None:
        self._done += 1
        self._steps_now = 0
        self._steps_done += member.candidate.steps

    def _left(self) -> str:
        """Returns the estimated remaining time as text."""
        steps = self._steps_done + self._steps_now
        if not steps or steps >= self._total_steps:
            return ""
        left = (time.perf_counter() - self._start_time) * (self._total_steps / steps - 1)
        return f"about {left / 60:.0f} min left" if left >= 90 else f"about {left:.0f} s left"
